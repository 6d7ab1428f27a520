"""Further measures of a training: every number against a calculation of its own, and rows that keep to themselves."""

import dataclasses
import hashlib
import time

import numpy as np
import pytest
import torch
from processes import CONTEXT

from robustkit import attacks
from robustkit.cell import EVALUATION_POINTS, FRACTIONS, Cell, InputError
from robustkit.data import fixed_points, load_dataset
from robustkit.report import ship
from robustkit.stability import expected_norm, perturbation_stability
from robustkit.sweep import store, train_missing, workers
from robustkit.sweep.train_missing import further, load_further
from robustkit.training.group import OutOfTimeError
from robustkit.training.loop import Loop
from robustkit.training.measures import measure, measure_group
from robustkit.training.remeasure import FURTHER, Attack, JacobianChange, StabilityPath

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {
    **{"width": 8, "depth": 3, "n_train": 64, "batch_size": 16, "epochs": 5, "lr": 0.1, "points": 20},
    "precision": "float64",
}
KINDS = [{}, {"loss": "squared", "alpha": 2.0}, {"loss": "squared", "target": "parity", "depth": 2}]
NAMES = sorted(FURTHER)


def cell(**fields):
    return Cell(**(TINY | fields))


CELLS = [cell(width=width, seed=seed) for width in (4, 8) for seed in (0, 1)]


def measured(name, **fields):
    return measure(cell(**fields), kind=FURTHER[name])["measures"]


def explicit(function, x):
    """The Jacobian at each point by vmap of reverse mode: (n, d_out, d_in)."""
    return torch.func.vmap(torch.func.jacrev(lambda z: function(z[None])[0]))(x).flatten(2).detach().numpy()


def trained_plainly(made):
    """A model trained by the plain loop, its points, and its Jacobians at each step of FRACTIONS."""
    data = load_dataset("digits", scaling=made.scaling, dtype=torch.float64)
    x, y = data.x_train[: made.train_points], data.y_train[: made.train_points]
    x_test = data.x_test[fixed_points(360, 100, "test points")]
    nets, seen = Loop([made], "cpu", torch.float64), {}

    def observe(step):
        seen[step] = explicit(nets.model, x_test)
        return [True]

    steps = [round(f * made.steps) for f in FRACTIONS]
    nets.train(x, y, evaluate_at=set(steps), observe=observe)
    return nets.model, data, [seen[step] for step in steps]


# ------------------------------------------------------------------------------------------------ Jacobians


def means(matrices):
    """Means over the points of the spectral and of the Frobenius norm, by numpy's SVD and entries."""
    return np.linalg.svd(matrices, compute_uv=False)[:, 0].mean(), np.linalg.norm(matrices, axis=(1, 2)).mean()


@pytest.mark.parametrize("fields", KINDS)
def test_the_change_of_the_jacobian_is_that_of_a_plain_training(fields):
    row = measured("jacobian_change", **fields)
    _, _, matrices = trained_plainly(cell(**fields))
    changes = np.array([means(now - matrices[0]) for now in matrices])
    assert set(row) == set(JacobianChange.columns)
    # float64; the square root of an eigenvalue keeps ten digits.
    for column, norm in (("jacobian", 0), ("frobenius", 1)):
        assert row[f"{column}_init"] == pytest.approx(means(matrices[0])[norm], rel=1e-10)
        assert row[f"{column}_end"] == pytest.approx(means(matrices[-1])[norm], rel=1e-10)
        assert row[f"{column}_change_over_time"] == pytest.approx(changes[:, norm], rel=1e-10)
        assert row[f"{column}_change"] == row[f"{column}_change_over_time"][-1] > 0
    assert row["jacobian_change_over_time"][0] == row["frobenius_change_over_time"][0] == 0


@pytest.mark.parametrize("epochs", [0.001, 0.5, 13])
def test_a_training_of_any_length_is_seen_at_seven_fractions(epochs):
    row = measured("jacobian_change", epochs=epochs)
    assert len(row["jacobian_change_over_time"]) == len(row["frobenius_change_over_time"]) == len(FRACTIONS)


def test_an_untrained_network_has_not_changed():
    """At a rate too small to move one weight of float32."""
    row = measured("jacobian_change", lr=1e-30, precision="float32")
    assert row["jacobian_change_over_time"] == row["frobenius_change_over_time"] == [0] * len(FRACTIONS)
    assert row["jacobian_end"] == row["jacobian_init"] > 0


# ------------------------------------------------------------------------------------------------ the attack row


@pytest.mark.parametrize("fields", KINDS)
def test_the_numbers_of_the_attack_are_those_of_a_plain_training(fields):
    made = cell(**fields)
    row = measured("attack", **fields)
    model, data, _ = trained_plainly(made)
    test = fixed_points(360, 200, "test points")
    x, y = data.x_test[test], data.y_test[test]
    same = data.x_train[:64][fixed_points(64, 200, "train points")]
    logits = model(x).detach().numpy()
    parity = made.target == "parity"
    right = (logits[:, 0] > 0) == (y.numpy() % 2 == 1) if parity else logits.argmax(1) == y.numpy()
    local = np.linalg.svd(explicit(model, x), compute_uv=False)[:, 0]
    norms = [np.linalg.svd(weight.detach().numpy(), compute_uv=False)[0] for weight in model.weights]
    own, best = logits[range(200), y.numpy() * (not parity)], np.sort(logits, axis=1)
    lead = np.where(right, own - best[:, 0 if parity else -2], own - best[:, -1])
    expected = {
        "logit_stability": perturbation_stability(model, x).mean,
        "logit_stability_train": perturbation_stability(model, same).mean,
        "lipschitz_mean": local.mean(),
        "lipschitz_max": local.max(),
        "spectral_product": np.prod(norms) / made.alpha,
        "margin": (logits[:, 0] * (2 * (y.numpy() % 2) - 1) if parity else lead).mean(),
        "accuracy": right.mean(),
    }
    assert row["lipschitz_max"] <= row["spectral_product"]
    if parity:  # the softmax of one output is 1 whatever the point
        assert row["softmax_stability"] is row["softmax_stability_train"] is row["logit_norm"] is None
    else:
        expected["logit_norm"] = np.linalg.norm(logits - logits.mean(1, keepdims=True), axis=1).mean()
        # J of softmax(f) is (diag(p) - p p^T) J of f.
        for part, points in (("", x), ("_train", same)):
            p = torch.softmax(model(points), 1).detach().numpy()
            inner = np.einsum("nk,kj->nkj", p, np.eye(10)) - np.einsum("nk,nj->nkj", p, p)
            matrices = torch.from_numpy(inner @ explicit(model, points))
            expected[f"softmax_stability{part}"] = expected_norm(matrices).mean().item()
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    for norm, radii, names in (
        ("l2", (0.5, 1.0, 2.0), ("0_5", "1", "2")),
        ("linf", (0.02, 0.05, 0.1), ("0_02", "0_05", "0_1")),
    ):
        found = attacks.attacked_accuracies(model, x, y, radii, norm=norm, parity=parity)
        for attack in ("fgsm", "pgd"):
            left = [row[f"accuracy_{attack}_{norm}_{name}"] for name in names]
            assert left == found[attack]
            assert [row["accuracy"], *left] == sorted([row["accuracy"], *left], reverse=True)
    assert set(row) == set(Attack.columns)


def test_a_network_of_convolutions_is_measured_on_its_images_and_has_no_spectral_product():
    fields = {"model": "cnn", "depth": 3, "head": "pooling", "epochs": 2}
    row = measured("attack", **fields)
    assert row["spectral_product"] is None
    assert all(row[name] is not None for name in set(row) - {"spectral_product"})
    assert row["lipschitz_max"] >= row["lipschitz_mean"] > row["logit_stability"] > 0
    assert row["accuracy"] >= row["accuracy_fgsm_linf_0_02"] >= row["accuracy_pgd_linf_0_1"]
    assert further([cell(**fields)], "attack", device="cpu")["spectral_product"].isna().all()
    assert measured("jacobian_change", **fields)["jacobian_change"] > 0


def test_a_product_that_no_float_holds_is_no_reason_to_drop_the_row(monkeypatch):
    monkeypatch.setattr(attacks, "spectral_product", lambda weights, alpha: float("inf"))
    row = measure(cell(), kind=Attack)
    assert row["status"] == "ok" and row["measures"]["spectral_product"] is None


def test_the_training_is_the_one_that_the_cells_own_row_came_from():
    """Also where a stop_loss ends it between two looks, and a network of a group goes on without the other."""
    losses = measure(cell())["measures"]["loss_over_time"]
    for fields in ({}, {"stop_loss": losses[30]}, {"precision": "float32"}, {"momentum": 0.5}):
        own = measure(cell(**fields))["measures"]["loss_over_time"][-1]
        for name in NAMES:
            assert measured(name, **fields)["loss_at_end"] == own
    pair = [cell(), cell(stop_loss=losses[30])]
    together = measure_group(pair, kind=JacobianChange)
    assert [row["measures"] for row in together] == [measure(c, kind=JacobianChange)["measures"] for c in pair]
    assert len(together[1]["measures"]["jacobian_change_over_time"]) == 6


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_and_the_plain_loop_measure_the_same(name):
    fast = measured(name)
    (slow,) = measure_group([cell()], kind=FURTHER[name], engine=Loop)
    assert slow["engine"]["name"] == "loop"
    for column, value in slow["measures"].items():
        assert fast[column] == pytest.approx(value, rel=1e-10), column


# ------------------------------------------------------------------------------------------------ rows


def test_a_key_is_that_of_the_cell_the_name_and_the_version(monkeypatch):
    text = f'{{"cell": "{cell().key}", "measure": "attack", "version": 2}}'
    assert Attack.key(cell()) == hashlib.sha256(text.encode()).hexdigest()
    keys = {FURTHER[name].key(made) for made in CELLS for name in NAMES} | {made.key for made in CELLS}
    assert len(keys) == 4 * len(CELLS)
    monkeypatch.setattr(Attack, "version", 3)
    assert Attack.key(cell()) not in keys


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_what_it_is_and_goes_to_json_and_back(name):
    row = measure(cell(), kind=FURTHER[name])
    assert (row["key"], row["cell_key"], row["status"]) == (FURTHER[name].key(cell()), cell().key, "ok")
    assert (row["measure"], row["version"], row["reason"]) == (name, FURTHER[name].version, None)
    assert Cell(**row["cell"]) == cell()
    assert row["engine"]["dtype"] == "float64" and row["versions"]["torch"] == torch.__version__
    assert row["seconds"] >= 0 and "commit" in row
    assert store.decode(store.encode(row))["measures"] == row["measures"]
    assert measure(cell(), kind=FURTHER[name])["measures"] == row["measures"]


@pytest.mark.parametrize("name", NAMES)
def test_a_row_a_cell_in_the_order_of_the_cells_and_the_second_time_nothing_is_trained(name, monkeypatch):
    rows = further(CELLS[::-1], name, device="cpu")
    assert list(rows["cell_key"]) == [made.key for made in CELLS[::-1]]
    assert rows.attrs["missing"] == [] and set(rows["status"]) == {"ok"}
    assert {*(field.name for field in dataclasses.fields(Cell)), *FURTHER[name].columns} <= set(rows.columns)
    for made, row in zip(CELLS[::-1], rows.to_dict("records"), strict=True):
        assert {column: row[column] for column in FURTHER[name].columns} == measured(name, **dataclasses.asdict(made))
    # Cheapest first on disk, whatever the order of the cells.
    assert [row["cell"]["width"] for row in store.read_rows(store.local_path())] == [4, 4, 8, 8]

    def refuse(*_):
        raise AssertionError("nothing was to be trained")

    monkeypatch.setattr(workers, "measure_safely", refuse)
    before = store.local_path().read_bytes()
    assert further(CELLS[::-1], name, device="cpu").equals(rows)
    assert store.local_path().read_bytes() == before
    assert sorted(load_further(name)["key"]) == sorted(rows["key"])
    assert len(load_further(name, local=False)) == 0
    assert list(load_further(name, local=False).columns) == list(rows.columns)
    assert rows.attrs["points"] == load_further(name).attrs["points"] == [FURTHER[name].points]


def test_trainings_and_further_rows_share_a_file_and_never_see_one_another():
    further(CELLS[:2], "attack", device="cpu")
    assert store.load_rows() == [] and len(train_missing.load()) == 0
    assert train_missing.frame(CELLS).attrs["missing"] == CELLS
    trained = train_missing.run(CELLS[:3], device="cpu")
    further(CELLS[:1], "jacobian_change", device="cpu")
    assert list(trained["key"]) == [made.key for made in CELLS[:3]]
    assert train_missing.load()["key"].tolist() == trained["key"].tolist()
    assert [len(load_further(name)) for name in ("attack", "jacobian_change")] == [2, 1]
    assert len(store.read_rows(store.local_path())) == 6
    joined = trained.merge(load_further("attack"), left_on="key", right_on="cell_key", suffixes=("", "_further"))
    assert len(joined) == 2


def test_two_workers_measure_what_one_does(monkeypatch):
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda _: CONTEXT)
    rows = further(CELLS, "jacobian_change", device="cpu", workers=2)
    for made, change in zip(CELLS, rows["jacobian_change"], strict=True):
        assert change == measure(made, kind=JacobianChange)["measures"]["jacobian_change"]


def test_after_a_row_was_torn_that_one_alone_is_measured_again():
    rows = further(CELLS[:2], "attack", device="cpu")
    path = store.local_path()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="damaged"):
        assert len(load_further("attack")) == 1
    with pytest.warns(UserWarning, match="damaged"):
        again = further(CELLS[:2], "attack", device="cpu")
    assert again[list(Attack.columns)].equals(rows[list(Attack.columns)])
    with open(path) as file:
        assert len(file.readlines()) == 3


def test_another_version_is_another_measure(monkeypatch):
    further(CELLS[:1], "attack", device="cpu")
    monkeypatch.setattr(Attack, "version", 3)
    assert len(load_further("attack")) == 0
    assert list(further(CELLS[:1], "attack", device="cpu")["version"]) == [3]
    assert len(store.read_rows(store.local_path())) == 2


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [2, 4])
def test_a_training_that_diverges_is_a_row_without_numbers_and_is_not_tried_again(name, depth):
    wild = cell(depth=depth, lr=1e6, precision="float32")
    rows = further([wild, CELLS[0]], name, device="cpu")
    assert list(rows["status"]) == ["diverged", "ok"] and rows["reason"][0]
    assert rows.loc[0, list(FURTHER[name].columns)].isna().all()
    before = store.local_path().read_bytes()
    further([wild], name, device="cpu")
    assert store.local_path().read_bytes() == before


def test_a_cell_that_raises_has_a_failed_row_of_its_own_kind_and_is_tried_again(monkeypatch):
    with monkeypatch.context() as broken:

        def raise_for_one(cells, *others):
            if CELLS[1] in cells:
                raise RuntimeError("no luck today")
            return measure_group(cells, *others)

        broken.setattr(workers, "measure_group", raise_for_one)
        rows = further(CELLS[:3], "attack", device="cpu")
    assert list(rows["status"]) == ["ok", "failed", "ok"] and "no luck today" in rows["reason"][1]
    (failed,) = [row for row in store.read_rows(store.local_path()) if row["status"] == "failed"]
    assert failed["measure"] == "attack" and failed["measures"] == dict.fromkeys(Attack.columns)
    assert store.load_rows() == []
    assert list(further(CELLS[:3], "attack", device="cpu")["status"]) == ["ok"] * 3


def test_bad_input_is_refused_before_any_training():
    for call in (lambda: load_further("atack"), lambda: further(CELLS, "atack")):
        with pytest.raises(InputError, match="'atack'.*did you mean 'attack'"):
            call()
    for arguments, words in (({"cells": []}, "empty"), ({"cells": CELLS * 2}, "twice"), ({"workers": 0}, "workers")):
        with pytest.raises(InputError, match=words):
            further(**({"cells": CELLS, "name": "attack"} | arguments))
    assert not store.local_path().exists()


def test_a_training_that_runs_out_of_time_is_dropped():
    with pytest.raises(OutOfTimeError):
        measure_group([cell()], deadline=time.monotonic() - 1, kind=Attack)


# ------------------------------------------------------------------------------------------------ shipping


def mnist_rows(value=0.5, **changes):
    """A training and its further rows, as they would come from a machine that has MNIST."""
    rows = []
    for width in (16, 128):
        made = Cell(width=width, depth=2, dataset="mnist")
        facts = {"status": "ok", "cell": dataclasses.asdict(made), "reason": None, "engine": {}, "versions": {}}
        facts |= {"commit": None, "seconds": 1.0} | changes
        rows.append({"key": made.key, "measures": {"stability": value}} | facts)
        for name in NAMES:
            rows.append(
                FURTHER[name].identity(made) | {"measures": dict.fromkeys(FURTHER[name].columns, value)} | facts
            )
    return rows


def test_both_kinds_are_shipped_sorted_and_the_second_time_nothing_changes():
    rows = mnist_rows()
    for i in np.random.default_rng(0).permutation(len(rows)):
        store.append(rows[i])
    assert ship.ship_rows([]) == (8, [])
    content = store.SHIPPED.read_bytes()
    kinds = [(row["cell"]["width"], row.get("measure")) for row in store.read_rows(store.SHIPPED)]
    assert kinds == [(width, name) for width in (16, 128) for name in (None, *NAMES)]
    assert ship.ship_rows([]) == (0, []) and store.SHIPPED.read_bytes() == content
    assert [row["key"] for row in store.load_rows(local=False)] == [rows[0]["key"], rows[4]["key"]]
    assert list(load_further("attack", local=False)["accuracy"]) == [0.5, 0.5]


def test_a_difference_names_the_measure_and_the_cell():
    one_kind = {"engine": {"vectors": "AVX2"}}
    first, others = mnist_rows(), mnist_rows(0.75, **one_kind)
    with pytest.raises(store.ConflictError, match="attack of .*'width': 16.* 0.5 and 0.75"):
        store.merge(mnist_rows(**one_kind), others[1:2], refuse=True)
    merged, (note,) = store.merge(first, mnist_rows(0.75, versions={"torch": "9"})[2:3])
    assert merged == first and "jacobian_change of" in note


def test_the_path_is_the_stability_of_the_row_where_both_are_observed():
    cell = Cell(width=16, depth=2, epochs=2, lr=0.04)
    row, path = measure(cell)["measures"], measure(cell, kind=StabilityPath)["measures"]
    assert len(path["path_over_time"]) == len(EVALUATION_POINTS)
    at = [EVALUATION_POINTS.index(f) for f in FRACTIONS if f in EVALUATION_POINTS]
    shared = [f for f in FRACTIONS if f in EVALUATION_POINTS]
    assert [path["path_over_time"][k] for k in at] == [row["stability_over_time"][FRACTIONS.index(f)] for f in shared]
    assert path["loss_at_end"] == row["loss_over_time"][-1]
