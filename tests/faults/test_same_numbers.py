"""One cell, one set of numbers, and the right ones: whatever the global seeds, the workers, the order, the group."""

import dataclasses
import json
import math
import random

import pytest
import torch

from robustkit.cell import EVALUATION_POINTS, INITS, Cell
from robustkit.data import load_dataset, stream_generator
from robustkit.networks import build
from robustkit.sweep import store, train_missing
from robustkit.training.ensemble import Ensemble
from robustkit.training.loop import Loop
from robustkit.training.measures import MEASURES, measure, measure_group

# On one thread alone do bits not depend on the machine's cores.
pytestmark = pytest.mark.usefixtures("one_thread")

# 64 points in batches of 16: 20 steps, so that each of them is an evaluation point.
SHORT = {"n_train": 64, "batch_size": 16, "epochs": 5, "lr": 0.1, "points": 20}
SCALARS = [name for name in MEASURES if not name.endswith("over_time") and name != "loss_at_stability"]


def cell(width=16, depth=4, **fields):
    own = {name: 1.0 for name in ("power", "gain") if fields.get("init") == name}
    return Cell(**{"width": width, "depth": depth} | SHORT | own | fields)


# ------------------------------------------------------------------------------------------------ seeds and workers

KINDS = [
    {"init": "he"},
    {"init": "power", "depth": 2},
    {"model": "cnn", "width": 4, "head": "pooling"},
    {"model": "resnet", "width": 2, "depth": 8, "augment": "crop_flip"},
]


@pytest.mark.guard(
    16,
    "robustkit/data.py",
    'torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))',
    "torch.default_generator",
)
@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_poisoned_global_seeds_change_no_number(poisoned_seeds, fields):
    made, state, found = cell(**fields), random.getstate(), []
    try:
        for seed in (0, 1):
            random.seed(seed)
            poisoned_seeds(seed)
            found.append(measure(made)["measures"])
            measure(cell(seed=1, width=8, depth=2))  # something in between
    finally:
        random.setstate(state)
    assert found[0] == found[1] and found[0]["stability"]


@pytest.mark.guard(16, "robustkit/data.py", 'f"{seed}/{stream}/{index}"', 'f"{stream}/{index}"')
@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_seeds_0_to_4_are_five_networks_and_five_runs(fields):
    made = [cell(**fields, seed=seed) for seed in range(5)]
    for layer in range(made[0].depth):
        weights = [build(one).weights[layer] for one in made]
        assert all(not torch.equal(a, b) for a in weights for b in weights if a is not b)
    rows = [measure(one)["measures"] for one in made]
    for name in ("stability", "kappa", "train_loss"):
        assert len({row[name] for row in rows}) == 5


def test_a_seed_names_one_order_of_the_data_of_its_own():
    orders = [torch.randperm(64, generator=stream_generator(seed, "order")).tolist() for seed in range(5)]
    assert len(set(map(tuple, orders))) == 5


def test_one_worker_or_two_and_any_order_write_the_same_rows(monkeypatch, tmp_path):
    """Two processes as `run` starts them."""
    cells = [cell(width, 2, seed=seed) for width in (8, 16) for seed in (0, 1)]
    found = []
    for name, order, workers in (("one", cells, 1), ("two", cells[::-1], 2)):
        monkeypatch.setenv("ROBUSTKIT_RESULTS", str(tmp_path / name))
        train_missing.run(order, device="cpu", workers=workers)
        rows = store.read_rows(store.local_path())
        assert len(rows) == 4
        found.append({row["key"]: (row["status"], row["measures"]) for row in rows})
    assert found[0] == found[1]


# ------------------------------------------------------------------------------------------------ divergence


def first_bad_step(made):
    """The step before which a plain run first has a loss that is not finite, and its losses till then."""
    data = load_dataset("digits")
    x, y, losses = data.x_train[:64], data.y_train[:64], []

    def observe(_):
        losses.append(torch.nn.functional.cross_entropy(nets.model(x), y).item())
        return [math.isfinite(losses[-1])]

    nets = Loop([made], "cpu", torch.float32)
    nets.train(x, y, evaluate_at=range(made.steps + 1), observe=observe)
    return len(losses) - 1, losses[:-1]


WILD = [cell(seed=seed, lr=1e6) for seed in (0, 1, 2)]
LATER = [cell(64, 6, seed=seed, lr=30) for seed in (0, 1, 2)]


@pytest.mark.guard(17, "robustkit/training/group.py", 'if note["going"] and not math.isfinite(loss):', "if False:")
def test_a_run_is_diverged_at_the_first_loss_that_is_not_finite():
    assert len({round(f * WILD[0].steps) for f in EVALUATION_POINTS}) == WILD[0].steps + 1  # no step is unobserved
    steps = []
    for made in WILD + LATER:
        step, sound = first_bad_step(made)
        row = measure(made)
        assert row["status"] == "diverged"
        assert row["reason"] in {f"the training loss is {value} at step {step}" for value in ("nan", "inf")}
        assert list(dict.fromkeys(row["measures"]["loss_over_time"])) == pytest.approx(sound, rel=1e-3)
        assert all(row["measures"][name] is None for name in SCALARS)
        steps.append(step)
    assert 1 <= steps[0] < steps[-1] <= 5


@pytest.mark.guard(
    17,
    "robustkit/training/group.py",
    "def _finite(value) -> bool:\n    return ",
    "def _finite(value) -> bool:\n    return True or ",
)
@pytest.mark.parametrize(
    "fields",
    [
        *({"depth": depth, "loss": loss, "lr": 1e6} for depth in (2, 3, 6) for loss in ("cross_entropy", "squared")),
        {"loss": "squared", "alpha": 1e-18, "lr": 1e-300, "depth": 2},  # overflows on the 360 test points alone
        {"init": "power", "power": 60.0, "depth": 2},  # weights below the smallest float: kappa is 0/0
    ],
    ids=str,
)
def test_no_nan_and_no_measurement_of_a_diverged_run_reaches_the_file(fields):
    """Some overflow; in others one step kills every unit, and zero would pass for perfect robustness."""
    made = cell(**fields)
    rows = train_missing.run([made], device="cpu")
    assert list(rows["status"]) == ["diverged"] and rows["reason"][0]
    assert rows[["stability", "train_loss", "kappa"]].isna().all(axis=None)
    (line,) = store.local_path().read_text().splitlines()
    row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in the file"))
    assert all(row["measures"][name] is None for name in SCALARS)


@pytest.mark.guard(
    17,
    "robustkit/training/group.py",
    'if note["going"] and not math.isfinite(loss):',
    'if note["going"] and not all(map(math.isfinite, losses)):',
)
def test_neighbours_of_a_diverging_network_have_the_bits_of_their_runs_alone():
    sound = [cell(seed=seed, init=init) for seed in (0, 1) for init in ("he", "ntk")]
    alone = {one.key: measure(one)["measures"] for one in sound}
    rows = {row["key"]: row for row in measure_group([WILD[0], *sound[:2], WILD[1], *sound[2:], WILD[2]])}
    assert [rows[one.key]["status"] for one in WILD] == ["diverged"] * 3
    assert [rows[one.key]["status"] for one in sound] == ["ok"] * 4
    assert {one.key: rows[one.key]["measures"] for one in sound} == alone


# ------------------------------------------------------------------------------------------------ the backward pass


def by_autograd(weights, x, y, alpha, loss):
    """Gradients of the loss written out from Eq. (2), in float64; and which units are active."""
    weights = [weight.double().clone().requires_grad_() for weight in weights]
    h, active = x.double(), []
    for weight in weights[:-1]:
        h = torch.relu(h @ weight.T)
        active.append(h > 0)
    f = h @ weights[-1].T / alpha
    if loss == "cross_entropy":
        total = (torch.logsumexp(f, 1) - f[range(len(y)), y]).mean()
    else:
        wanted = torch.eye(10, dtype=torch.float64)[y] if f.shape[1] == 10 else (2.0 * (y % 2) - 1)[:, None]
        total = ((f - wanted) ** 2).sum(1).mean() / 2
    return torch.autograd.grad(total, weights), active


def clear_points(networks, count, generator):
    """Points at which no unit of any network is so near its kink that rounding in float32 could switch it."""
    x = torch.rand(4 * count + 60, 64, generator=generator, dtype=torch.float64).float()
    kept = torch.ones(len(x), dtype=torch.bool)
    for weights in networks:
        h = x.double()
        for weight in weights[:-1]:
            before = h @ weight.double().T
            size = h.norm(dim=1, keepdim=True) * weight.double().norm(dim=1)  # rounding is a share of it
            kept &= (before.abs() > 2e-5 * size).all(1)
            h = torch.relu(before)
    assert kept.sum() >= count
    return x[kept][:count]


def one_step(fields, seeds, draw):
    """Largest relative error of a layer's step over random networks of all initialisations; units that switched."""
    size, precision = fields["batch_size"], fields["precision"]
    dtype = torch.float64 if precision == "float64" else torch.float32
    inits = [(init, {}) for init in INITS if init != "power" or fields["depth"] == 2]
    plain = {"n_train": size, "epochs": 1, "milestones": ()}
    made = [cell(**fields | plain | {"init": init, "seed": seed} | own) for init, own in inits for seed in seeds]
    starts = [[weight.detach() for weight in build(one).weights] for one in made]
    x = clear_points(starts, size, draw)
    y = torch.randint(10, (size,), generator=draw)
    wanted = [by_autograd(w, x, y, one.alpha, one.loss) for w, one in zip(starts, made, strict=True)]
    # A learning rate at which each step is longer than the weights, and not lost in their rounding.
    lrs = [10 * max((w.norm() / g.norm()).item() for w, g in zip(ws, gs, strict=True))
             for ws, (gs, _) in zip(starts, wanted, strict=True)]  # fmt: skip
    made = [dataclasses.replace(one, lr=lr) for one, lr in zip(made, lrs, strict=True)]
    nets = Ensemble(made, "cpu", dtype)
    switched, worst = 0, 0.0
    for s, (weights, (_, active)) in enumerate(zip(starts, wanted, strict=True)):
        h = x.to(dtype)
        for weight, units in zip(nets.network(s)[:-1], active, strict=True):
            h = torch.relu(h @ weight.T)
            switched += ((h > 0) != units).sum().item()
        assert all(torch.equal(a.float(), b.float()) for a, b in zip(nets.network(s), weights, strict=True))
    nets.train(x.to(dtype), y, evaluate_at=(), observe=lambda step: [True])
    for s, (weights, (gradients, _)) in enumerate(zip(starts, wanted, strict=True)):
        for now, before, gradient in zip(nets.network(s), weights, gradients, strict=True):
            step = (before.double() - now.double()) / made[s].lr
            worst = max(worst, ((step - gradient).norm() / gradient.norm()).item())
    return worst, switched


LOSSES = [{"loss": "cross_entropy"}, {"loss": "squared"}, {"loss": "squared", "target": "parity"}]


@pytest.mark.guard(
    19,
    "robustkit/training/ensemble.py",
    "torch.ops.aten.threshold_backward.grad_input(below, hidden[layer], 0, grad_input=below)",
    "pass",
)
@pytest.mark.guard(19, "robustkit/training/ensemble.py", "self.rate / (self.alpha * size)", "self.rate / size")
@pytest.mark.parametrize("fields", LOSSES, ids=lambda fields: fields.get("target", fields["loss"]))
@pytest.mark.parametrize("depth", range(2, 11))
def test_the_batched_backward_pass_is_that_of_float64_autograd(depth, fields):
    draw = stream_generator(depth, "batched backward")
    for width, size in ((16, 1), (17, 16), (33, 7), (100, 23)):
        shape = {"width": width, "depth": depth, "batch_size": size, "alpha": 1.7} | fields
        error, switched = one_step(shape | {"precision": "float64"}, (0, 1), draw)
        assert error < 1e-12 and switched == 0, (width, error, switched)
        error, switched = one_step(shape | {"precision": "float32"}, (0, 1), draw)
        assert switched == 0, f"{switched} units are on the other side of their kink in float32"
        assert error < 1e-5, (width, error)
