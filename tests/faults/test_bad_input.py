"""Bad input is refused before any work: one sentence with the field, the value and what is allowed; exit status 2."""

import math
import re
import signal
import subprocess
import sys

import numpy as np
import pandas
import pytest

import robustkit as rk
from robustkit import profiles
from robustkit.__main__ import main
from robustkit.cell import Cell, InputError
from robustkit.report import notebooks
from robustkit.sweep import store
from robustkit.training.ensemble import Ensemble

SMALL = {"width": 16, "depth": 2}
NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def nothing_is_written_or_trained(own_folders, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it was trained")

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Ensemble, "train", refuse)
    monkeypatch.setattr(store, "append", refuse)
    monkeypatch.setattr(notebooks, "_execute", refuse)
    yield
    signal.signal(signal.SIGTERM, handler)  # the command takes it over
    assert list(own_folders.iterdir()) == []


def cell(**fields):
    return Cell(**(SMALL | fields))


# ------------------------------------------------------------------------------------------------ a cell

BAD_NUMBERS = {
    "width": (0, -1, 2.5, "256", True, NAN, INF, None, [16], 1 + 2j, 10**9 + 1, 10**400),
    "depth": (1, 0, -2, 2.5, "2", True, NAN, INF, None, 10**4 + 1),
    "seed": (-1, 0.5, "0", False, NAN, INF, None),
    "alpha": (0, -1.0, "1", True, NAN, INF, None),
    "epochs": (0, -1, "50", True, NAN, INF, None, 1e308),
    "batch_size": (0, -64, 1.5, "64", True, NAN, INF, None),
    "lr": (0, -0.001, "0.001", True, NAN, INF, -INF, None),
    "lr_decay": (0, -0.1, 1.1, "0.1", NAN, INF, None),
    "momentum": (-0.1, 1.5, "0.9", NAN, INF, None),
    "weight_decay": (-1e-4, "0", NAN, INF, None),
    "stop_loss": (0, -1, "0.1", NAN, INF),
    "stop_every": (0, -1, 2.5, "20", True, NAN, INF),
    "n_train": (0, -1, 1438, 64.5, "64", True, NAN, INF, pandas.NA),
    "points": (0, -1, 0.5, "100", True, NAN, INF, None, 10**400),
}


@pytest.mark.guard(20, "robustkit/checks.py", "if not (fits and", "if False and not (fits and")
@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in BAD_NUMBERS.items() for v in values])
def test_a_bad_number_is_refused_with_its_field_its_value_and_what_is_allowed(field, value):
    with pytest.raises(InputError) as refused:
        cell(**{field: value})
    said = str(refused.value)
    assert said.startswith(f"{field} is {value!r}, but must be ")
    assert "an integer" in said or "a finite number" in said
    assert ("(or None)" in said) == (field in ("stop_loss", "stop_every", "n_train"))


def test_the_range_allowed_is_said():
    with pytest.raises(InputError, match=r"depth is 1, but must be an integer and at least 2 and at most 10000$"):
        cell(depth=1)
    with pytest.raises(InputError, match=r"lr is -1, but must be a finite number and above 0$"):
        cell(lr=-1)
    with pytest.raises(InputError, match=r"lr_decay is 2, but must be a finite number and above 0 and at most 1$"):
        cell(lr_decay=2)
    with pytest.raises(InputError, match="at most 1437"):
        cell(n_train=1438)


@pytest.mark.guard(20, "robustkit/checks.py", "if not known:", "if False:")
@pytest.mark.guard(20, "robustkit/checks.py", "difflib.get_close_matches(str(value)", "difflib.get_close_matches('?'")
@pytest.mark.parametrize(
    ("field", "value", "nearest"),
    [
        ("init", "hee", "he"),
        ("init", "Lecun", "lecun"),
        ("init", "xavier", None),
        ("init", None, None),
        ("init", ["he"], None),
        ("init", np.array(["he"]), None),
        ("init", np.array(["he", "ntk"]), None),
        ("init", pandas.NA, None),
        ("model", "fnc", "fcn"),
        ("model", "transformer", None),
        ("scaling", "units", "unit"),
        ("scaling", "Raw", "raw"),
        ("target", "parities", "parity"),
        ("loss", "cross-entropy", "cross_entropy"),
        ("loss", "square", "squared"),
        ("lr_rule", "inverse-width", "inverse_width"),
        ("augment", "crop", None),
        ("precision", "float16", "float64"),
        ("precision", 32, None),
        ("dataset", "mnits", "mnist"),
        ("dataset", None, None),
        ("head", "pooling", None),
        ("bias", True, None),
    ],
    ids=repr,
)
def test_an_unknown_choice_is_refused_with_the_nearest_spelling(field, value, nearest):
    with pytest.raises(InputError) as refused:
        cell(**{field: value})
    said = str(refused.value)
    assert said.startswith(f"{field} is {value!r}, but must be one of ")
    if nearest:
        assert f"did you mean {nearest!r}?" in said


@pytest.mark.guard(
    20, "robustkit/cell.py", 'check_choice("a field of Cell", name, cls.__dataclass_fields__)', "continue"
)
@pytest.mark.parametrize(
    ("wrong", "right"), [("widht", "width"), ("batchsize", "batch_size"), ("learning_rate", None), ("lrs", "lr")]
)
def test_a_misspelt_field_is_refused_with_the_nearest_spelling(wrong, right):
    with pytest.raises(InputError, match=f"'{wrong}'.*must be one of width, depth, ") as refused:
        cell(**{wrong: 1})
    if right:
        assert f"did you mean {right!r}?" in str(refused.value)


@pytest.mark.guard(20, "robustkit/cell.py", "if self.batch_size > self.train_points:", "if False:")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"init": "power"}, "power is None"),
        ({"init": "power", "power": NAN}, "power is nan"),
        ({"init": "power", "power": "2"}, "power is '2'"),
        ({"power": 2.0}, "power is 2.0, but init is 'he'"),
        ({"init": "gain"}, "gain is None"),
        ({"init": "gain", "gain": 0}, "gain is 0"),
        ({"init": "gain", "gain": 1e200}, "gain is 1e+200, but must be"),
        ({"init": "power", "power": -500}, "power is -500, but must be"),
        ({"init": "ntk", "gain": 1.5}, "gain is 1.5, but init is 'ntk'"),
        ({"init": "power", "power": 2.0, "gain": 1.5}, "gain is 1.5, but init is 'power'"),
        ({"target": "parity"}, "target is 'parity', but loss is 'cross_entropy': it must be 'squared'"),
        ({"n_train": 32}, "batch_size is 64, but must be at most the 32 training points"),
        ({"batch_size": 1438}, "batch_size is 1438, but must be at most the 1437 training points"),
        ({"model": "cnn"}, "head is None, but must be one of pooling, flatten"),
        ({"model": "resnet", "depth": 9}, "depth is 9, but must be 6n + 2 for a ResNet: 8, 14, 20"),
        ({"model": "resnet", "depth": 8, "init": "ntk"}, "init of a resnet is 'ntk', but must be one of he, power"),
        ({"model": "cnn", "head": "pooling", "alpha": 2}, "alpha is 2.0, but must be 1 for model 'cnn'"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, said):
    with pytest.raises(InputError) as refused:
        cell(**fields)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "milestones", [(0.7, 0.5), (0.5, 0.5), (0, 0.5), (0.5, 1.1), (0.5, NAN), (0.5, "0.7"), (True,), 0.5, "0.5", None]
)
def test_bad_milestones_are_refused(milestones):
    with pytest.raises(InputError, match="^milestones is "):
        cell(milestones=milestones)


@pytest.mark.parametrize("dataset", ["nowhere.npz", ["digits"], "", b"digits", "\0.npz", 3])
def test_a_dataset_that_cannot_be_is_refused(dataset):
    with pytest.raises(InputError, match="^dataset is "):
        cell(dataset=dataset)


def test_a_seed_is_kept_to_the_last_digit():
    """One seed names one network: a large one must not turn quietly into its neighbour."""
    assert cell(seed=2**53 + 1).seed == 2**53 + 1


# ------------------------------------------------------------------------------------------------ a grid and a run


@pytest.mark.guard(20, "robustkit/profiles.py", "if not several:", "if False:")
@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"seeds": [0, 1, 0]}, r"seeds is \[0, 1, 0\], but must be a non-empty list without duplicates"),
        ({"seeds": []}, r"seeds is \[\], but must be a non-empty list"),
        ({"widths": []}, r"widths is \[\], but must be a non-empty list"),
        ({"depths": [2, 2]}, r"depths is \[2, 2\]"),
        ({"widths": 16}, "widths is 16, but must be a list"),
        ({"seeds": [[0]]}, r"seeds is \[\[0\]\], but must be a list of numbers"),
        ({"widths": "256"}, "width is '2', but must be an integer"),
        ({"width": 16}, "width is 16, but a grid takes widths, a list"),
        ({"seeds": [1.5]}, "seed is 1.5, but must be an integer"),
        ({"lrs": 0.1}, "'lrs', but must be one of width, .*; did you mean 'lr'"),
    ],
    ids=str,
)
def test_a_bad_grid_is_refused(choices, said):
    with pytest.raises(InputError, match=said):
        profiles.grid("N2", "smoke", **choices)
    with pytest.raises(InputError, match=said):
        profiles.profile_cells("smoke", **choices)
    with pytest.raises(InputError, match=said):
        profiles.grid("unit", "smoke", **choices)


@pytest.mark.parametrize("figure", ["N2", "unit", "theorem1", "all"])
def test_an_unknown_profile_is_refused_with_the_nearest_spelling(figure):
    with pytest.raises(InputError, match="profile is 'smok', but must be one of .*; did you mean 'smoke'"):
        rk.collect(figure, "smok")


@pytest.mark.guard(
    20, "robustkit/sweep/train_missing.py", "if len({cell.key for cell in cells}) != len(cells):", "if False:"
)
@pytest.mark.guard(20, "robustkit/sweep/train_missing.py", "if not cells:", "if False:")
@pytest.mark.parametrize(
    ("cells", "options", "said"),
    [
        ([], {}, "cells is empty, but must hold at least one Cell"),
        ([cell(), cell(seed=1), cell()], {}, "cells holds the same run twice"),
        ([cell(lr=0.1), cell(lr=1e-1)], {}, "cells holds the same run twice"),
        (cell(), {}, "cells is Cell.*, but must be a list of Cell"),
        ([{"width": 16}], {}, "cells holds {'width': 16}, but must be a list of Cell"),
        ([cell()], {"workers": 0}, "workers is 0, but must be an integer and at least 1"),
        (
            [cell()],
            {"workers": 10**9},
            "workers is 1000000000, but must be an integer and at least 1 and at most 1000",
        ),
        ([cell()], {"workers": "2"}, "workers is '2', but must be an integer"),
        ([cell()], {"minutes": -1}, "minutes is -1, but must be a finite number and above 0"),
        ([cell()], {"minutes": NAN}, "minutes is nan"),
        ([cell()], {"device": "gpu"}, "device is 'gpu', but must be auto, cpu or a GPU that is there"),
    ],
    ids=str,
)
def test_a_bad_run_is_refused(cells, options, said):
    with pytest.raises(InputError, match=said):
        rk.run(cells, **options)


# ------------------------------------------------------------------------------------------------ the command line


def call(*arguments):
    """Exit status, as a shell sees it."""
    try:
        return main(list(arguments))
    except SystemExit as leaving:
        return leaving.code


@pytest.mark.guard(20, "robustkit/__main__.py", "return 2", "return 1")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run smok", "profile is 'smok'.*did you mean 'smoke'"),
        ("plan papr", "did you mean 'paper'"),
        ("status Laptop", "did you mean 'laptop'"),
        ("report cloud", "must be one of smoke, laptop, paper, shipped"),
        ("run shipped", "'shipped', which trains nothing"),
        ("start", "'start'"),
        ("run laptop --claim E6", "claim is 'E6', but must be one of E01"),
        ("run laptop --claim T01", "'T01', which no run"),
        ("plan laptop --claim E06 --seeds 0", "seeds is 0"),
        ("plan laptop --claim E06 --seeds 1000000000", "seeds is 1000000000, but must be .* at most 1000"),
        ("plan smoke --workers 1000000000", "workers is 1000000000, but must be .* at most 1000"),
        ("status smoke --depths 1000000000", "depth is 1000000000, but must be an integer.*at most 10000"),
        ("run", "required: profile"),
        ("run smoke --minutes 0", "minutes is 0.0, but must be"),
        ("run smoke --minutes -3", "minutes is -3.0"),
        ("run smoke --minutes nan", "minutes is nan"),
        ("run smoke --minutes inf", "minutes is inf"),
        ("run smoke --minutes soon", "--minutes.*'soon'"),
        ("run smoke --workers 0", "workers is 0, but must be an integer"),
        ("plan smoke --workers -1", "workers is -1"),
        ("run smoke --workers 1.5", "--workers.*'1.5'"),
        ("run smoke --wdths 4", "--wdths"),
        ("run smoke --widths 0", "width is 0, but must be an integer"),
        ("run smoke --widths -1", "width is -1"),
        ("run smoke --widths 2.5", "--widths.*'2.5'"),
        ("run smoke --widths", "--widths.*expected at least one argument"),
        ("run smoke --depths 1", "depth is 1, but must be an integer and at least 2"),
        ("run smoke --widths 4 4", r"widths is \[4, 4\].*without duplicates"),
        ("run smoke --seeds 0 0", r"seeds is \[0, 0\].*without duplicates"),
        ("run smoke --seeds -1", "seed is -1"),
        ("plan smoke --widths 99999999999999999999", "width is 9+, but must be an integer.*at most 1000000000"),
        ("plan smoke --depths 1000000000", "depth is 1000000000, but must be an integer.*at most 10000"),
        ("run smoke --device gpu", "device is 'gpu'"),
        ("plan smoke --device cuda:99", "device is 'cuda:99'"),
        ("ship no/such/file.jsonl", "'no/such/file.jsonl', but there is no such file"),
    ],
)
def test_a_bad_command_is_refused_with_a_sentence_and_exit_status_2(capsys, arguments, words):
    assert call(*arguments.split()) == 2
    out, said = capsys.readouterr()
    assert out == "" and re.search(words, said.replace("\n", " ")), said


def test_a_real_process_says_it_in_one_line_and_ends_with_status_2():
    command = [sys.executable, "-m", "robustkit", "run", "smoke", "--widths", "16", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "robustkit: width is 0, but must be an integer and at least 1 and at most 1000000000\n"


# ------------------------------------------------------------------------------------------------ the notebooks

PARAMETERS = [
    ("profle=smoke", "'profle'.*did you mean 'profile'"),
    ("widht=16", "'widht'.*did you mean 'width'"),
    ("x=1;import os", "'x', but must be one of"),
    ("x;import os;y=1", "'x;import os;y', but must be one of"),
    ("__import__('os')=1", "must be one of"),
    ("widths", "'widths', but must be NAME=VALUE"),
    ("width=wide", "width is 'wide', but must be of type int"),
    ("width=2.5", "width is 2.5, but must be of type int"),
    ('width="256"', "width is '256', but must be of type int"),
    ("seed=1.5", "seed is 1.5, but must be of type int"),
    ("width=True", "width is True, but must be of type int"),
    ("device=0", "device is 0, but must be of type str"),
    ("seeds=some", "seeds is 'some'"),
    ("widths=16", "widths is 16"),
    ("widths=[]", r"widths is \[\], but must be a non-empty list of whole numbers without duplicates"),
    ("seeds=[0, 0]", r"seeds is \[0, 0\], but must be a non-empty list of whole numbers without duplicates"),
    ("widths=['16']", r"widths is \['16'\], but must be a non-empty list"),
    ("widths={[]: 1}", r"widths is '{\[\]: 1}', but must be a list"),
    ("widths=" + "-" * 9000 + "1", "but must be a list"),
]


@pytest.mark.guard(20, "robustkit/report/notebooks.py", 'check_choice("the notebook parameter", name, names)', "pass")
@pytest.mark.parametrize(("given", "words"), PARAMETERS)
@pytest.mark.parametrize("check", [[], ["--check"]], ids=["run", "check"])
def test_a_bad_notebook_parameter_is_refused_before_any_notebook_starts(capsys, given, words, check):
    assert call("report", "smoke", "-p", given, *check) == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "99"], "--only is '99', but must be one of 00, 01"),
        (["--only", "7"], "--only is '07', but must be one of 00, 01"),
        (["--only", "02", "--only", "x"], "--only is 'x'"),
    ],
)
def test_an_unknown_notebook_is_refused(capsys, arguments, words):
    assert call("report", "smoke", *arguments) == 2
    assert re.search(words, capsys.readouterr().err)
