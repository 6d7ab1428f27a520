"""A cell's key is its name: any change is another key, another spelling is not, and old keys stay what they were."""

import copy
import dataclasses
import json
import math
import os
import pickle
import shutil
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_rows import a_stored_row

from robustkit import cell as config
from robustkit.cell import INITS_OF, NUMERICS, Cell
from robustkit.checks import InputError
from robustkit.datasets import DATASETS
from robustkit.sweep import store, train_missing
from robustkit.training.measures import measure

FIELDS = {field.name: field for field in dataclasses.fields(Cell)}
ONLY_ONE_VALUE = {"bias"}  # declared early, for keys; True is refused
thorough = settings(max_examples=30, deadline=None, derandomize=True, database=None)

positive, fraction = st.floats(1e-300, 1e300), st.floats(1e-9, 1)
milestones = st.lists(fraction, unique=True, max_size=4).map(sorted).map(tuple)
# Values of each field; which of them a cell may have depends on its other fields.
VALUES = {
    **{"width": st.integers(1, 10**9), "depth": st.integers(2, 10**4), "seed": st.integers(0, 2**64)},
    **{"model": st.sampled_from(sorted(NUMERICS)), "init": st.sampled_from(INITS_OF["fcn"])},
    **{"power": st.floats(-30, 1e300), "gain": st.floats(1e-300, 1e100), "alpha": positive},
    **{"head": st.sampled_from(["pooling", "flatten"]), "dataset": st.sampled_from(sorted(DATASETS))},
    **{"scaling": st.sampled_from(["raw", "unit", "standard"]), "n_train": st.none() | st.integers(1, 1437)},
    **{"target": st.sampled_from(["class", "parity"]), "loss": st.sampled_from(["cross_entropy", "squared"])},
    **{"epochs": st.floats(1e-9, 10**6), "batch_size": st.integers(1, 1437), "lr": positive},
    **{"lr_rule": st.sampled_from(["fixed", "inverse_width"]), "milestones": milestones, "lr_decay": fraction},
    **{"momentum": st.floats(0, 1), "weight_decay": st.floats(0, 1e300), "stop_loss": st.none() | positive},
    "stop_every": st.none() | st.integers(1, 10**9),
    **{"augment": st.sampled_from(["none", "crop_flip"]), "points": st.integers(1, 10**9)},
    "precision": st.sampled_from(["float32", "tf32", "float64"]),
}

EVERY = st.fixed_dictionaries(VALUES)


@st.composite
def cells(draw, **fixed):
    """Any valid cell with these fields."""
    fields = draw(EVERY) | fixed
    model, init = fields["model"], fields["init"]
    if init not in INITS_OF[model]:
        init = fields["init"] = draw(st.sampled_from(INITS_OF[model]))
    fields |= {name: None for name in ("power", "gain") if name != init}
    fields["alpha"] = fields["alpha"] if model == "fcn" else 1.0
    fields["head"] = fields["head"] if model == "cnn" else None
    fields["stop_every"] = fields["stop_every"] if fields["stop_loss"] else None
    fields["augment"] = fields["augment"] if model == "resnet" else "none"
    if model == "resnet" and (fields["depth"] < 8 or fields["depth"] % 6 != 2):
        fields["depth"] = 6 * draw(st.integers(1, 1666)) + 2
    if fields["target"] == "parity":
        fields["loss"] = "squared"
    if fields["n_train"]:
        fields["batch_size"] = min(fields["batch_size"], fields["n_train"])
    return Cell(**fields)


# What a cell must be for another value of the field alone to be allowed.
NEEDED = {
    "model": {"model": "fcn", "init": "he", "depth": 14, "alpha": 1.0},
    "init": {"model": "fcn", "init": "he"},
    "power": {"init": "power"},
    "gain": {"model": "fcn", "init": "gain"},
    "alpha": {"model": "fcn"},
    "head": {"model": "cnn"},
    "stop_every": {"stop_loss": 0.5},
    "stop_loss": {"stop_every": None},
    "augment": {"model": "resnet"},
    "target": {"loss": "squared", "target": "class"},
    "loss": {"target": "class"},
}


def test_every_field_has_other_values_here():
    assert set(FIELDS) == set(VALUES) | ONLY_ONE_VALUE


@pytest.mark.guard(15, "robustkit/cell.py", 'fields | {"dataset"', "fields | {'points': 1} | {\"dataset\"")
@pytest.mark.parametrize("field", VALUES)
@thorough
@given(data=st.data())
def test_another_value_of_one_field_is_another_key(field, data):
    before = data.draw(cells(**NEEDED.get(field, {})))
    value, others = getattr(before, field), VALUES[field]
    if isinstance(value, float):
        others |= st.just(math.nextafter(value, math.inf)) | st.just(math.nextafter(value, 0))
    if isinstance(value, int):
        others |= st.just(value + 1)
    try:
        after = dataclasses.replace(before, **{field: data.draw(others)})
    except InputError:
        assume(False)
    assume(getattr(after, field) != value)
    assert after != before and after.key != before.key


@thorough
@given(st.lists(cells(), min_size=2, max_size=20, unique=True))
def test_two_cells_are_equal_where_their_keys_are(found):
    assert len({cell.key for cell in found}) == len(found)


def spellings(value):
    """The same value as other types hold it."""
    found = [value]
    if isinstance(value, (int, float)):
        # As fractions: numpy takes np.float64(2**53) and 2**53 + 1 for equal.
        found += [
            number for number in (Fraction(value), np.float64(value), float(value)) if Fraction(number) == value
        ]
        found += [np.int64(value)] if value == int(value) and abs(value) < 2**63 else []
        found += [int(value)] if value == int(value) else []
        found += [np.float32(value)] if abs(value) < 1e30 and float(np.float32(value)) == value else []
    if isinstance(value, float) and value == 0:
        found += [-0.0]
    if isinstance(value, tuple):
        found += [list(value), [np.float64(entry) for entry in value]]
    if isinstance(value, bool):
        found = [value, np.bool_(value), int(value)]
    return st.sampled_from(found)


@pytest.mark.guard(15, "robustkit/checks.py", "return int(value) if integer else number + 0.0", "return value")
@settings(thorough, max_examples=100)
@given(data=st.data(), cell=cells())
def test_equal_values_written_differently_have_one_key(data, cell):
    fields = list(dataclasses.asdict(cell).items())
    written = {name: data.draw(spellings(value)) for name, value in data.draw(st.permutations(fields))}
    again = Cell(**written)
    assert again == cell and hash(again) == hash(cell) and again.key == cell.key
    for name, value in dataclasses.asdict(cell).items():
        assert type(getattr(again, name)) is type(value), name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lr": 1e-1}, {"lr": 0.1}),
        ({"width": 64}, {"width": 64.0}),
        ({"epochs": 50}, {"epochs": 50.0}),
        ({"milestones": (0.5, 1)}, {"milestones": [0.5, np.float64(1.0)]}),
        ({"lr": 0.1, "epochs": 3, "alpha": 2}, {"alpha": 2, "epochs": 3, "lr": 0.1}),
        ({}, {"seed": 0, "model": "fcn", "dataset": "digits"}),
        ({"momentum": 0.0}, {"momentum": -0.0}),
    ],
    ids=str,
)
def test_these_are_one_cell(one, other):
    one, other = (Cell(**{"width": 16, "depth": 2} | fields) for fields in (one, other))
    assert one == other and one.key == other.key


@thorough
@given(cells())
def test_a_cell_comes_back_from_pickle_replace_copy_json_and_the_store(cell):
    fields = dataclasses.asdict(cell)
    row = store.decode(store.encode(a_stored_row(key=cell.key, cell=fields)))
    for again in (
        pickle.loads(pickle.dumps(cell)),
        dataclasses.replace(cell),
        copy.copy(cell),
        copy.deepcopy([cell])[0],
        Cell(**json.loads(json.dumps(fields, allow_nan=False))),
        Cell(**row["cell"]),
    ):
        assert again == cell and hash(again) == hash(cell) and again.key == cell.key == row["key"]


def test_a_cell_stays_as_it_is():
    made = Cell(width=16, depth=2, milestones=[0.3])
    with pytest.raises(InputError, match="width is 0"):
        dataclasses.replace(made, width=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.width = 8
    assert copy.deepcopy([made])[0] is made  # a frame holds the cells it misses, and is copied often


@pytest.mark.guard(15, "robustkit/cell.py", "self.data.sha256, NUMERICS[self.model])", "self.data.sha256, 1)")
@settings(thorough, max_examples=15)
@given(st.lists(cells(), min_size=3, max_size=9), st.sampled_from(sorted(NUMERICS)))
def test_a_higher_numerics_of_a_family_is_other_keys_for_that_family_and_no_other(found, family):
    before = [cell.key for cell in found]
    with pytest.MonkeyPatch.context() as here:
        here.setitem(config.NUMERICS, family, NUMERICS[family] + 1)
        after = [cell.key for cell in found]
    for cell, old, new in zip(found, before, after, strict=True):
        assert (new != old) == (cell.model == family)


@pytest.mark.guard(15, "robustkit/cell.py", '{"dataset": sha256, "numerics"', '{"numerics"')
def test_a_files_key_is_its_content_not_its_path(write_npz, tmp_path):
    path = write_npz()
    elsewhere = tmp_path / "elsewhere, übung"
    elsewhere.mkdir()
    shutil.copy(path, elsewhere / "copy.npz")
    fields = {"width": 16, "depth": 2, "batch_size": 4}
    key = Cell(**fields, dataset=path).key
    assert Cell(**fields, dataset=elsewhere / "copy.npz").key == key

    x_train = np.array(np.load(path)["x_train"])
    x_train[0, 0] = np.nextafter(x_train[0, 0], np.float32(9))
    assert Cell(**fields, dataset=write_npz("other.npz", x_train=x_train)).key != key

    made = Cell(**fields, dataset=path)
    before = os.stat(path)
    write_npz(x_train=x_train)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps size and time
    assert Cell(**fields, dataset=path).key != key
    assert made.key == key, "what it describes is what the file held"
    with pytest.raises(InputError, match="has changed since its runs were described"):
        train_missing.run([made])


# ------------------------------------------------------------------------------------------------ what is pinned


def test_the_keys_of_three_cells_are_what_they_always_were():
    """If this fails, every row that anyone has stops matching: change the key's recipe only on purpose."""
    paper = Cell(width=128, depth=4, dataset="mnist", seed=3)
    small = Cell(width=16, depth=2, init="power", power=2.0, n_train=100, loss="squared", target="parity")
    assert paper.key == "5f58320e3316a6b40591757433f88260d1e1143be861fe7ce842418eb714aa1d"
    assert small.key == "4a98629ec1df2b425362df9a20657f07341aa8c46c346d85889459ceee5eba27"
    deep = Cell(width=16, depth=110, model="resnet", dataset="cifar10", augment="crop_flip", momentum=0.9)
    assert deep.key == "7043988bd03bdc96cff1c36339c4460bf40083ac7d9434da66f4dad003c862df"


GOLDEN = Cell(width=16, depth=3, n_train=128, batch_size=32, epochs=2.5, lr=0.05, points=32, seed=1)


@pytest.mark.guard(15, "robustkit/initialization.py", 'scale = {"he": 2.0,', 'scale = {"he": 2.001,')
def test_a_known_cell_measures_what_it_always_did(one_thread):
    """Ten steps at a small learning rate, so that rounding does not grow.

    If this fails, an edit has changed what rows mean: undo it, or raise NUMERICS["fcn"] so that the old rows no
    longer match, and only then pin the new numbers.
    """
    row = measure(GOLDEN)["measures"]
    pinned = {
        "stability": 0.49026835,
        "stability_sem": 0.019392577,
        "stability_init": 0.59073995,
        "stability_train": 0.49016465,
        "lipschitz_mean": 3.1053897,
        "lipschitz_max": 4.1549089,
        "frobenius": 4.2814075,
        "logit_norm": 1.3487415,
        "train_loss": 2.2759597,
        "train_accuracy": 0.0625,
        "test_loss": 2.2768164,
        "test_accuracy": 0.10833333,
        "kappa": 0.029818781,
    }
    assert {name: row[name] for name in pinned} == pytest.approx(pinned, rel=1e-5)
    over_time = {
        "stability_over_time": [0.59073995, 0.59073995, 0.59073995, 0.56476646, 0.53712231, 0.48949523, 0.49026835],
        "loss_at_stability": [2.5657763, 2.5657763, 2.5657763, 2.4466047, 2.3969855, 2.2802408, 2.2759602],
    }
    assert {name: row[name] for name in over_time} == {
        name: pytest.approx(values, rel=1e-5) for name, values in over_time.items()
    }
    assert row["movement_over_time"][-1] == pytest.approx([0.042308561, 0.022713958, 0.023134598], rel=1e-5)


RECIPE = {"momentum": 0.9, "weight_decay": 1e-4, "augment": "crop_flip", "scaling": "standard"}


@pytest.mark.parametrize(
    ("fields", "pinned"),
    [
        (
            {"model": "cnn", "width": 6, "depth": 5, "head": "flatten", "lr": 0.05},
            {"stability": 0.26588539, "lipschitz_max": 2.7580649, "train_loss": 2.28356, "kappa": 0.027185479},
        ),
        (
            {"model": "cnn", "width": 6, "depth": 4, "head": "pooling", "lr": 0.05},
            {"stability": 0.079564429, "lipschitz_max": 0.67136902, "train_loss": 2.3213348, "kappa": 0.020707723},
        ),
        (
            {"model": "resnet", "width": 4, "depth": 8, "lr": 0.02} | RECIPE,
            {"stability": 0.079954951, "lipschitz_max": 0.8465694, "train_loss": 2.3482203, "kappa": 0.01601227},
        ),
    ],
    ids=["cnn flatten", "cnn pooling", "resnet"],
)
def test_a_known_convolutional_cell_measures_what_it_always_did(one_thread, fields, pinned):
    """As above; convolutions add up in an order that differs more between machines."""
    row = measure(Cell(n_train=128, batch_size=32, epochs=2.5, points=32, seed=1, **fields))["measures"]
    assert {name: row[name] for name in pinned} == pytest.approx(pinned, rel=1e-4)
