"""The command line: what it refuses, what it says, and with which exit status it ends."""

import re
import signal
import warnings

import pytest

from robustkit import profiles, report, store, sweep
from robustkit.__main__ import main
from robustkit.config import figures_folder, results_folder
from robustkit.profiles import FIGURES

SMALL = ["--widths", "16", "--seeds", "0", "--depths", "2"]  # 29 trainings


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """The command takes over SIGTERM, which here outlives it."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(autouse=True)
def one_epoch(monkeypatch):
    """The smoke profile, made short."""
    monkeypatch.setitem(profiles.SETTINGS, "smoke", {"dataset": "digits", "epochs": 1, "points": 16})


def call(*arguments):
    """Exit status, as a shell sees it."""
    try:
        return main(list(arguments))
    except SystemExit as leaving:
        return leaving.code


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
        ("run laptop --claim T01", "'T01', which no training"),
        ("plan laptop --claim E06 --seeds 0", "seeds is 0"),
        ("run", "required: profile"),
        ("run smoke --minutes 0", "minutes is 0.0, but must be"),
        ("run smoke --minutes -3", "minutes is -3.0"),
        ("run smoke --minutes nan", "minutes is nan"),
        ("run smoke --minutes soon", "--minutes.*'soon'"),
        ("run smoke --workers 0", "workers is 0, but must be an integer"),
        ("plan smoke --workers -1", "workers is -1"),
        ("run smoke --workers 1.5", "--workers.*'1.5'"),
        ("run smoke --wdths 4", "--wdths"),
        ("run smoke --widths 0", "width is 0, but must be an integer"),
        ("run smoke --widths 4 4", r"widths is \[4, 4\].*without duplicates"),
        ("run smoke --seeds -1", "seed is -1"),
        ("run smoke --device gpu", "device is 'gpu'"),
        ("plan smoke --device cuda:99", "device is 'cuda:99'"),
        ("ship no/such/file.jsonl", "'no/such/file.jsonl', but there is no such file"),
    ],
)
def test_bad_input_is_refused_with_a_sentence_before_anything_runs(capsys, arguments, words):
    assert call(*arguments.split()) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert re.search(words, said), said
    assert not results_folder().exists() and not store.SHIPPED.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "profle=smoke"], "'profle'.*did you mean 'profile'"),
        (["-p", "x=1;import os"], "'x', but must be one of"),
        (["-p", "x;import os;y=1"], "'x;import os;y', but must be one of"),
        (["-p", "__import__('os')=1"], "must be one of"),
        (["-p", "widths"], "'widths', but must be NAME=VALUE"),
        (["-p", "width=wide"], "width is 'wide', but must be of type int"),
        (["-p", "seed=1.5"], "seed is 1.5, but must be of type int"),
        (["-p", "width=True"], "width is True, but must be of type int"),
        (["-p", "device=0"], "device is 0, but must be of type str"),
        (["-p", "seeds=some"], "seeds is 'some'"),
        (["-p", "widths=16"], "widths is 16"),
        (["--only", "99"], "--only is '99', but must be one of 00, 01"),
        (["--only", "2"], "did you mean '02'"),
        (["--only", "02", "--only", "x"], "--only is 'x'"),
    ],
)
def test_a_report_refuses_bad_parameters_before_any_notebook_starts(capsys, monkeypatch, arguments, words):
    def start(*_, **__):
        raise AssertionError("a notebook was started")

    monkeypatch.setattr(report, "ProcessPoolExecutor", start)
    assert call("report", "smoke", *arguments) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not (results_folder() / "notebooks").exists() and not figures_folder("smoke").exists()


def test_a_plan_says_what_is_done_and_what_the_rest_costs(capsys):
    assert call("plan", "smoke", *SMALL, "--device", "cpu", "--workers", "2") == 0
    said = capsys.readouterr().out
    assert "0 of 29 trainings done, 29 missing" in said
    # 2 + 4 operations a weight and point. 19 nets of 16 (64 + 10) weights, 1437 points, one epoch; with one output,
    # 400 epochs: nine on 8, 16 and 32 points, one on 1437.
    scalar = 16 * 65 * 400 * (3 * (8 + 16 + 32) + 1437)
    assert f"operations: {6 * (19 * 16 * 74 * 1437 + scalar):.2e}" in said
    assert re.search(r"memory of the largest: 0\.\d\d GiB \(width 16, depth 2\)", said)
    assert re.search(r"time on cpu with 2 worker\(s\): about \d+ s", said)
    assert not results_folder().exists()


def test_run_status_and_plan_agree_on_what_is_there(capsys):
    def table():
        assert call("status", "smoke", *SMALL) == 0
        header, *lines = capsys.readouterr().out.splitlines()
        assert header.split() == ["figure", "done", "diverged", "failed", "missing"]
        return {line.split()[0]: tuple(map(int, line.split()[1:])) for line in lines}

    empty = table()
    assert list(empty) == [*FIGURES, "all"]
    assert empty["all"] == (0, 0, 0, 29)
    assert (empty["N2"], empty["N4b"], empty["W7"]) == ((0, 0, 0, 1), (0, 0, 0, 2), (0, 0, 0, 4))
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 0
    assert "profile smoke: 29 of 29 trainings done" in capsys.readouterr().out
    full = table()
    assert (full["N2"], full["N4b"], full["W7"]) == ((1, 0, 0, 0), (2, 0, 0, 0), (4, 0, 0, 0))
    assert call("plan", "smoke", *SMALL, "--device", "cpu") == 0
    assert "29 of 29 trainings done, 0 missing" in capsys.readouterr().out


def test_a_training_that_fails_or_diverges_is_listed_with_its_reason(capsys, monkeypatch):
    monkeypatch.setitem(profiles.SETTINGS["smoke"], "lr", 1e30)
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 0
    said = capsys.readouterr().out
    assert re.search(r"diverged: he, depth 2, width 16, seed 0: the training loss is (nan|inf)", said)

    def fail(cell, *_):
        raise RuntimeError("no luck today")

    with monkeypatch.context() as broken:
        broken.setattr(sweep, "measure_group", fail)
        broken.setitem(profiles.SETTINGS["smoke"], "lr", 0.01)
        broken.setattr(profiles, "CONTROLS", {})  # some have a rate of their own, and are done
        assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 1
        said = capsys.readouterr().out
        assert "profile smoke: 0 of 9 trainings done" in said
        assert "failed: he, depth 2, width 16, seed 0: RuntimeError: no luck today" in said


def test_a_run_that_is_out_of_time_says_how_far_it_came(capsys):
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1", "--minutes", "1e-9") == 0
    assert "profile smoke: 0 of 29 trainings done" in capsys.readouterr().out


def test_a_damaged_row_is_named_in_one_line(capsys):
    store.local_path().parent.mkdir(parents=True)
    store.local_path().write_text('{"key": "torn')
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert call("status", "smoke", *SMALL) == 0
    said = capsys.readouterr().err
    assert said == f"warning: {store.local_path()}: 1 damaged row(s) left out, at line 1\n"


def test_a_results_folder_that_cannot_be_written_is_refused(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROBUSTKIT_RESULTS", str(tmp_path / "file" / "results"))
    assert call("run", "smoke", *SMALL, "--device", "cpu") == 2
    assert str(tmp_path / "file" / "results") in capsys.readouterr().err


def test_rows_that_contradict_each_other_end_a_command_with_a_sentence(capsys):
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 0
    row = store.read_rows(store.local_path())[0]
    store.append(row | {"measures": row["measures"] | {"stability": 123.0}}, store.SHIPPED)
    capsys.readouterr()
    assert call("run", "smoke", *SMALL, "--device", "cpu") == 1
    said = capsys.readouterr().err
    assert said.startswith("robustkit: two rows of one cell") and "123.0" in said


def test_one_claim_can_be_run_alone_with_so_many_seeds(capsys):
    assert call("run", "smoke", "--claim", "E02", "--seeds", "3", "--widths", "4", "--device", "cpu") == 0
    assert "claim E02: 9 of 9 trainings done" in capsys.readouterr().out  # three scalings, three seeds
    assert {row["cell"]["seed"] for row in store.load_rows()} == {0, 1, 2}
