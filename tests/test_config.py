"""One training: what is refused, what its key depends on, and what its schedule amounts to."""

import copy
import dataclasses
import json
import math
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from robustkit import config, store
from robustkit.config import Cell, InputError, check_number, dataset_info
from robustkit.networks import FCN

SMALL = {"width": 16, "depth": 2}
NAN, INF = math.nan, math.inf


def cell(**fields):
    return Cell(**(SMALL | fields))


def test_tests_write_nowhere_near_the_users_results():
    for path in (store.local_path(), store.SHIPPED, config.figures_folder("smoke")):
        assert not path.is_relative_to(config.ROOT)


# ------------------------------------------------------------------------------------------------ what is refused

BAD_NUMBERS = {
    "width": (0, -1, 2.5, "256", True, NAN, INF, None, [16], 1 + 2j),
    "depth": (1, 0, -2, 2.5, "2", True, NAN, INF, None),
    "seed": (-1, 0.5, "0", False, NAN, INF, None),
    "alpha": (0, -1.0, "1", True, NAN, INF, None),
    "epochs": (0, -1, "50", True, NAN, INF, None),
    "batch_size": (0, -64, 1.5, "64", True, NAN, INF, None),
    "lr": (0, -0.001, "0.001", True, NAN, INF, None),
    "lr_decay": (0, -0.1, 1.1, "0.1", NAN, INF, None),
    "momentum": (-0.1, 1.5, "0.9", NAN, INF, None),
    "weight_decay": (-1e-4, "0", NAN, INF, None),
    "stop_loss": (0, -1, "0.1", NAN, INF),
    "n_train": (0, -1, 1438, 64.5, "64", True, NAN, INF),
    "points": (0, -1, 0.5, "100", True, NAN, INF, None),
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in BAD_NUMBERS.items() for v in values])
def test_a_bad_number_is_refused_with_its_field_its_value_and_what_is_allowed(field, value):
    with pytest.raises(InputError) as refused:
        cell(**{field: value})
    said = str(refused.value)
    assert said.startswith(f"{field} is {value!r}, but must be ")
    assert "an integer" in said or "a finite number" in said
    assert ("(or None)" in said) == (field in ("stop_loss", "n_train"))


def test_the_range_allowed_is_said():
    with pytest.raises(InputError, match=r"depth is 1, but must be an integer and at least 2$"):
        cell(depth=1)
    with pytest.raises(InputError, match=r"lr_decay is 2, but must be a finite number and above 0 and at most 1$"):
        cell(lr_decay=2)
    with pytest.raises(InputError, match="at most 1437"):
        cell(n_train=1438)


@pytest.mark.parametrize(
    ("field", "value", "nearest"),
    [
        ("init", "hee", "he"),
        ("init", "Lecun", "lecun"),
        ("init", "xavier", None),
        ("init", None, None),
        ("init", ["he"], None),
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
)
def test_an_unknown_choice_is_refused_with_the_nearest_spelling(field, value, nearest):
    with pytest.raises(InputError) as refused:
        cell(**{field: value})
    said = str(refused.value)
    assert said.startswith(f"{field} is {value!r}, but must be one of ")
    if nearest:
        assert f"did you mean {nearest!r}?" in said


@pytest.mark.parametrize(
    ("wrong", "right"), [("widht", "width"), ("batchsize", "batch_size"), ("learning_rate", None), ("lrs", "lr")]
)
def test_a_misspelt_field_is_refused_with_the_nearest_spelling(wrong, right):
    with pytest.raises(InputError, match=f"'{wrong}'.*must be one of width, depth, ") as refused:
        cell(**{wrong: 1})
    if right:
        assert f"did you mean {right!r}?" in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"init": "power"}, "power is None"),
        ({"init": "power", "power": NAN}, "power is nan"),
        ({"init": "power", "power": "2"}, "power is '2'"),
        ({"power": 2.0}, "power is 2.0, but init is 'he'"),
        ({"init": "gain"}, "gain is None"),
        ({"init": "gain", "gain": 0}, "gain is 0"),
        ({"init": "ntk", "gain": 1.5}, "gain is 1.5, but init is 'ntk'"),
        ({"init": "power", "power": 2.0, "gain": 1.5}, "gain is 1.5, but init is 'power'"),
        ({"target": "parity"}, "target is 'parity', but loss is 'cross_entropy': it must be 'squared'"),
        ({"n_train": 32}, "batch_size is 64, but must be at most the 32 training points"),
        ({"batch_size": 1438}, "batch_size is 1438, but must be at most the 1437 training points"),
        ({"model": "cnn"}, "head is None, but must be one of pooling, flatten"),
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


@pytest.mark.parametrize("dataset", ["nowhere.npz", ["digits"]])
def test_a_dataset_that_cannot_be_is_refused(dataset):
    with pytest.raises(InputError, match="^dataset is "):
        cell(dataset=dataset)


def test_a_number_too_large_for_a_float_is_refused():
    with pytest.raises(InputError, match="^width is 1000"):
        cell(width=10**400)


def test_a_seed_is_kept_to_the_last_digit_or_refused():
    """One seed names one network: a large one must not turn quietly into its neighbour."""
    try:
        assert cell(seed=2**53 + 1).seed == 2**53 + 1
    except InputError as refused:
        assert "seed" in str(refused)


def test_check_number_is_inclusive_at_low_and_high_and_exclusive_at_above():
    assert check_number("n", 1, low=1, high=1, integer=True) == 1
    assert check_number("n", None, optional=True) is None
    with pytest.raises(InputError, match="above 0"):
        check_number("n", 0, above=0)


# ------------------------------------------------------------------------------------------------ what the key is

# One other value of each field, beside what a cell needs for both values to be allowed.
OTHER = {
    "width": (17, {}),
    "depth": (3, {}),
    "seed": (1, {}),
    "model": ("resnet", {"depth": 8}),
    "init": ("lecun", {}),
    "power": (1.5, {"init": "power", "power": 2.0}),
    "gain": (1.5, {"init": "gain", "gain": 1.2}),
    "alpha": (2.0, {}),
    "head": ("flatten", {"model": "cnn", "head": "pooling"}),
    "dataset": ("mnist", {}),
    "scaling": ("unit", {}),
    "n_train": (100, {}),
    "target": ("parity", {"loss": "squared"}),
    "loss": ("squared", {}),
    "epochs": (49.0, {}),
    "batch_size": (63, {}),
    "lr": (0.0011, {}),
    "lr_rule": ("inverse_width", {}),
    "milestones": ((0.5, 0.7), {}),
    "lr_decay": (0.2, {}),
    "momentum": (0.9, {}),
    "weight_decay": (1e-4, {}),
    "augment": ("crop_flip", {"model": "resnet", "depth": 14}),
    "stop_loss": (0.1, {}),
    "precision": ("float64", {}),
    "points": (999, {}),
}
ONLY_ONE_VALUE = {"bias"}  # declared early, for keys; True is refused above


def test_every_field_has_another_value_here():
    assert {field.name for field in dataclasses.fields(Cell)} == set(OTHER) | ONLY_ONE_VALUE


@pytest.mark.parametrize("field", OTHER)
def test_another_value_of_one_field_is_another_key(field):
    value, needed = OTHER[field]
    before = cell(**needed)
    assert getattr(before, field) != value
    after = dataclasses.replace(before, **{field: value})
    assert after.key != before.key
    assert after != before


def test_no_two_of_the_cells_above_share_a_key():
    cells = [cell(**(needed | {field: value})) for field, (value, needed) in OTHER.items()]
    assert len({c.key for c in cells}) == len(set(cells)) == len(cells)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lr": 1e-1}, {"lr": 0.1}),
        ({"lr": 0.1}, {"lr": np.float64(0.1)}),
        ({"width": 64}, {"width": 64.0}),
        ({"width": 64}, {"width": np.int64(64)}),
        ({"batch_size": 32}, {"batch_size": np.uint8(32)}),
        ({"epochs": 50}, {"epochs": 50.0}),
        ({"alpha": 1}, {"alpha": 1.0}),
        ({"seed": 0}, {"seed": np.int32(0)}),
        ({"milestones": (0.5, 1)}, {"milestones": [0.5, np.float64(1.0)]}),
        ({"init": "power", "power": 2}, {"power": 2.0, "init": "power"}),
        ({"lr": 0.1, "epochs": 3, "alpha": 2}, {"alpha": 2, "epochs": 3, "lr": 0.1}),
        ({}, {"seed": 0, "model": "fcn", "dataset": "digits"}),
        ({"momentum": 0.0}, {"momentum": -0.0}),
        ({"init": "power", "power": 0.0}, {"init": "power", "power": -0.0}),
        ({"bias": False}, {"bias": 0}),
        ({"bias": False}, {"bias": np.bool_(False)}),
    ],
    ids=str,
)
def test_equal_values_written_differently_have_one_key(one, other):
    assert cell(**one) == cell(**other)
    assert cell(**one).key == cell(**other).key


def test_fields_are_stored_as_plain_json_types(write_npz):
    made = Cell(
        width=np.int64(16),
        depth=2.0,
        lr=np.float64(0.1),
        batch_size=np.uint8(4),
        milestones=[0.5],
        dataset=Path(write_npz()),
    )
    assert [type(v) for v in (made.width, made.depth, made.lr, made.batch_size)] == [int, int, float, int]
    assert made.milestones == (0.5,)
    fields = dataclasses.asdict(made)
    again = Cell(**json.loads(json.dumps(fields)))
    assert again == made
    assert again.key == made.key


def test_the_keys_of_two_cells_are_what_they_always_were():
    """If this fails, every row that anyone has stops matching: change the key's recipe only on purpose."""
    paper = Cell(width=128, depth=4, dataset="mnist", seed=3)
    small = Cell(width=16, depth=2, init="power", power=2.0, n_train=100, loss="squared", target="parity")
    assert paper.key == "5f58320e3316a6b40591757433f88260d1e1143be861fe7ce842418eb714aa1d"
    assert small.key == "4a98629ec1df2b425362df9a20657f07341aa8c46c346d85889459ceee5eba27"


def test_a_higher_numerics_of_the_family_is_another_key(monkeypatch):
    before = cell().key
    monkeypatch.setitem(config.NUMERICS, "cnn", 99)
    assert cell().key == before
    monkeypatch.setitem(config.NUMERICS, "fcn", 99)
    assert cell().key != before


def test_a_files_key_is_its_content_not_its_path(write_npz, tmp_path):
    path = write_npz()
    elsewhere = tmp_path / "elsewhere, übung"
    elsewhere.mkdir()
    shutil.copy(path, elsewhere / "copy.npz")
    fields = SMALL | {"batch_size": 4}
    key = Cell(**fields, dataset=path).key
    assert Cell(**fields, dataset=str(elsewhere / "copy.npz")).key == key

    x_train = np.array(np.load(path)["x_train"])
    x_train[0, 0] = np.nextafter(x_train[0, 0], np.float32(9))
    assert Cell(**fields, dataset=write_npz("other.npz", x_train=x_train)).key != key

    made = Cell(**fields, dataset=path)
    before = os.stat(path)
    write_npz(x_train=x_train)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    assert made.key != key  # the same file name with other content


def test_a_cell_survives_pickle_and_replace_and_stays_as_it_is():
    made = cell(init="power", power=2.0, milestones=[0.3])
    again = pickle.loads(pickle.dumps(made))
    assert again == made and hash(again) == hash(made) and again.key == made.key
    assert copy.deepcopy([made])[0] is made  # a frame holds the cells it misses, and is copied often
    assert dataclasses.replace(made, seed=1) == cell(init="power", power=2.0, milestones=[0.3], seed=1)
    with pytest.raises(InputError, match="width is 0"):
        dataclasses.replace(made, width=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.width = 8


# ------------------------------------------------------------------------------------------------ what it amounts to


def test_the_papers_schedule():
    """50 epochs of 938 batches, the rate falling tenfold after epochs 25, 35 and 45 (NeurIPS Sec. 5.1)."""
    paper = Cell(width=16, depth=2, dataset="mnist")
    assert (paper.steps_per_epoch, paper.steps, paper.schedule) == (938, 46_900, "full")
    assert round(paper.flow_time, 3) == 24.486
    for epoch, before, after in ((25, 1e-3, 1e-4), (35, 1e-4, 1e-5), (45, 1e-5, 1e-6)):
        drop = 938 * epoch
        assert paper.rate(drop - 1) == pytest.approx(before, rel=1e-12)
        assert paper.rate(drop) == pytest.approx(after, rel=1e-12)
    assert paper.rate(0) == 1e-3
    assert paper.rate(46_899) == pytest.approx(1e-6, rel=1e-12)


def test_a_tenth_of_the_steps_at_ten_times_the_rate_flows_as_long():
    fast = Cell(width=16, depth=2, dataset="mnist", epochs=5, lr=0.01)
    assert fast.schedule == "flow10"
    assert fast.flow_time == pytest.approx(24.486, abs=5e-4)
    assert Cell(width=16, depth=2, epochs=50, lr=0.04).schedule == "50 epochs at 0.04"


@pytest.mark.parametrize("epochs", [0.01, 0.3, 1, 7 / 3, 10])
@pytest.mark.parametrize("milestones", [(), (0.5,), (0.01, 0.02, 0.03), (0.33, 0.34, 1.0), (1.0,)])
def test_flow_time_is_the_sum_of_the_rates(epochs, milestones):
    made = cell(n_train=23, batch_size=4, epochs=epochs, milestones=milestones, lr=0.3, lr_decay=0.25)
    rates = [made.rate(step) for step in range(made.steps)]
    # Summing up to 60 rates one way and a few products the other: both within 60 roundings.
    assert made.flow_time == pytest.approx(math.fsum(rates), rel=60 * 2**-53)
    assert sorted(rates, reverse=True) == rates


def test_steps_count_the_last_small_batch_and_are_at_least_one():
    assert cell(n_train=23, batch_size=4).steps_per_epoch == 6
    assert cell(n_train=24, batch_size=4).steps_per_epoch == 6
    assert cell(n_train=23, batch_size=4, epochs=2.5).steps == 15
    assert cell(epochs=1e-9).steps == 1


def test_the_rate_may_fall_with_width():
    assert cell(width=512, lr=0.1, lr_rule="inverse_width").rate(0) == pytest.approx(0.025, rel=1e-15)
    assert cell(width=128, lr=0.1, lr_rule="inverse_width").rate(0) == 0.1


@pytest.mark.parametrize("fields", [{}, {"width": 7, "depth": 5}, {"target": "parity", "loss": "squared"}])
def test_parameters_are_those_of_the_network(fields):
    made = cell(**fields)
    net = FCN(width=made.width, depth=made.depth, d_in=made.d_in, d_out=made.d_out)
    assert made.parameters == sum(weight.numel() for weight in net.parameters())
    # 2 operations a weight and point forwards, 4 backwards, for every point of 50 epochs
    assert made.flops == pytest.approx(6 * made.parameters * 1437 * 50, rel=1e-12)


def test_sizes_come_from_the_dataset(write_npz):
    assert (cell().d_in, cell().d_out, cell().train_points) == (64, 10, 1437)
    assert cell(target="parity", loss="squared").d_out == 1
    assert Cell(width=16, depth=2, dataset="cifar100").d_in == 3072
    own = Cell(width=16, depth=2, dataset=write_npz(), batch_size=4, n_train=10)
    assert (own.d_in, own.d_out, own.train_points) == (3, 3, 10)
    assert dataset_info(own.dataset).n_test == 8
