"""Networks trained together: the same numbers as one at a time under autograd, and the same bits in any company."""

import dataclasses
import functools
import itertools
import math
import types
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robustkit.cell import INITS, Cell
from robustkit.data import load_dataset
from robustkit.initialization import layer_stds
from robustkit.movement import layer_norms
from robustkit.stability import gram, jacobian, spectrum
from robustkit.sweep import train_missing, workers
from robustkit.training.ensemble import Ensemble, batchable, group_size, groups
from robustkit.training.loop import Loop
from robustkit.training.measures import measure_group

# Small networks are faster on one thread, and on one thread alone do bits not depend on the machine's cores.
pytestmark = pytest.mark.usefixtures("one_thread")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and there is none")

# 23 points in batches of 4: six steps an epoch, the last of three points; 18 steps, the rate falling before 9 and 14.
SHORT = {
    **{"width": 20, "depth": 3, "n_train": 23, "batch_size": 4, "epochs": 3, "lr": 0.2, "points": 10},
    **{"milestones": (0.5, 0.75), "lr_decay": 0.3, "precision": "float64"},
}


def cell(**fields):
    own = {name: 1.0 for name in ("power", "gain") if fields.get("init") == name}
    return Cell(**(SHORT | own | fields))


def trained(engine, cells, device="cpu"):
    dtype = torch.float64 if cells[0].precision == "float64" else torch.float32
    data = load_dataset(cells[0].dataset, dtype=dtype, device=device)
    nets = engine(cells, device, dtype)
    n = cells[0].train_points
    nets.train(data.x_train[:n], data.y_train[:n], evaluate_at=(), observe=lambda step: [True])
    return nets


def distance(weights, others):
    """Largest relative distance of a layer, in norm."""
    pairs = zip(weights, others, strict=True)
    return max((torch.linalg.norm(a.cpu() - b.cpu()) / torch.linalg.norm(b.cpu())).item() for a, b in pairs)


# ------------------------------------------------------------------------------------------------ the same numbers

KINDS = [
    *({"init": init, "depth": depth} for init in INITS for depth in (2, 3, 6, 10) if init != "power" or depth == 2),
    *({"loss": "squared", "depth": depth, "lr": 0.05} for depth in (2, 4)),
    {"loss": "squared", "target": "parity", "depth": 2, "lr": 0.05},
    {"alpha": 3.0, "depth": 2},
    {"lr_rule": "inverse_width", "lr": 0.005},
    {"batch_size": 23},
    {"batch_size": 1, "lr": 0.05},
    {"epochs": 0.5},
    {"milestones": ()},
    {"width": 17, "depth": 4},
    {"dataset": "three columns", "n_train": 19},
]


@functools.cache
def three_columns(folder):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((28, 3)).astype(np.float32), np.arange(28) % 3
    np.savez(folder / "own.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    return str(folder / "own.npz")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return three_columns(tmp_path_factory.mktemp("own"))


def named(fields):
    return ", ".join(f"{k} {v}" for k, v in fields.items())


@pytest.mark.parametrize("fields", KINDS, ids=named)
def test_together_they_train_as_each_does_under_autograd(own, fields):
    as_under_autograd(own, fields)


def as_under_autograd(own, fields):
    fields = fields | ({"dataset": own} if "dataset" in fields else {})
    cells = [cell(**fields, seed=seed) for seed in (0, 3, 5)]
    nets = trained(Ensemble, cells)
    for s, one in enumerate(cells):
        alone, start = trained(Loop, [one]).network(0), Loop([one], "cpu", torch.float64).network(0)
        # 12 to 70 steps of a stable training, each adding a few roundings of 1e-16.
        assert distance(nets.network(s), alone) < 1e-12
        assert distance(start, alone) > 1e-4  # or nothing would have been compared


def test_networks_of_one_group_may_differ_in_initialisation_rate_and_seed():
    cells = [
        cell(),
        cell(init="lecun", seed=1, lr=0.1, milestones=(0.3,), lr_decay=0.5),
        cell(init="ntk", lr_rule="inverse_width", lr=0.005),
        cell(init="power", power=0.5, alpha=2.0, seed=7),
        cell(init="gain", gain=1.5, milestones=()),
    ]
    assert groups(cells, "cpu") == [cells]
    nets = trained(Ensemble, cells)
    for s, one in enumerate(cells):
        assert distance(nets.network(s), trained(Loop, [one]).network(0)) < 1e-12


@pytest.mark.parametrize("fields", KINDS[:12:3] + KINDS[13:], ids=named)
@pytest.mark.parametrize("engine", [Ensemble, Loop])
def test_logits_and_jacobians_are_those_of_the_module(own, fields, engine):
    cells = [cell(**fields | ({"dataset": own} if "dataset" in fields else {}), seed=seed) for seed in (0, 3, 5)]
    cells = cells[:1] if engine is Loop else cells
    nets = trained(engine, cells)
    x = load_dataset(cells[0].dataset, dtype=torch.float64).x_test[:20]
    eigenvalues, logits = nets.eigenvalues(x), nets.logits(x)
    assert logits.shape == (len(cells), len(x), cells[0].d_out)
    for s, one in enumerate(cells):
        model = trained(Loop, [one]).model
        assert torch.allclose(logits[s], model(x), rtol=1e-10, atol=1e-12)
        expected = spectrum(gram(jacobian(model, x)))
        rank = min(expected.shape[1], eigenvalues.shape[2])
        assert torch.allclose(eigenvalues[s, :, -rank:], expected[:, -rank:], rtol=0, atol=1e-11 * expected.max())


def test_a_row_is_that_of_the_plain_loop():
    """In float64, where a short training does not amplify rounding: every number of the row."""
    cells = [cell(seed=seed, init=init, n_train=200, batch_size=16) for seed in (0, 1) for init in ("he", "lecun")]
    rows = measure_group(cells)
    for one, row in zip(cells, rows, strict=True):
        slow = measure_group([one], engine=Loop)[0]
        assert row["key"] == slow["key"] == one.key and row["status"] == slow["status"] == "ok"
        assert (row["engine"]["name"], row["engine"]["group"]) == ("ensemble", 4)
        assert (slow["engine"]["name"], slow["engine"]["group"]) == ("loop", 1)
        for name, value in slow["measures"].items():
            assert np.allclose(row["measures"][name], value, rtol=1e-9, atol=0), name


# ------------------------------------------------------------------------------------------------ the same bits


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"width": 16, "depth": 2, "n_train": 200, "batch_size": 64},
        {"width": 17, "depth": 4, "n_train": 87, "batch_size": 20, "points": 33},
        {"width": 5, "depth": 2, "loss": "squared", "target": "parity", "n_train": 9, "batch_size": 8, "lr": 0.02},
        {"width": 100, "depth": 3, "loss": "squared", "lr": 0.02},
        {"width": 7, "dataset": "three columns", "n_train": 19},
        {"width": 64, "depth": 6, "n_train": 304, "batch_size": 64},  # the last batch is of 48
    ],
    ids=lambda fields: named(fields) or "plain",
)
def test_a_row_is_the_same_bits_alone_and_in_any_group(own, fields):
    fields = fields | {"precision": "float32"} | ({"dataset": own} if "dataset" in fields else {})
    cells = [cell(**fields, seed=seed, init=init) for seed in (0, 1, 2) for init in ("he", "ntk")]
    measures = {row["key"]: row["measures"] for row in measure_group(cells)}
    assert all(values["stability"] for values in measures.values())
    for order in (cells[::-1], cells[2:5], cells[3:4], [cells[5], cells[0]]):
        for row in measure_group(order):
            assert row["measures"] == measures[row["key"]]


def test_a_network_that_reached_its_loss_keeps_its_weights_while_the_others_go_on():
    free = cell(epochs=15, milestones=(), lr=0.1)
    losses = measure_group([free])[0]["measures"]["loss_over_time"]
    stopping = dataclasses.replace(free, stop_loss=losses[20] * (1 + 1e-9))
    alone = measure_group([stopping])[0]["measures"]
    rows = measure_group([free, stopping, dataclasses.replace(free, seed=1)])
    assert rows[1]["measures"] == alone
    assert len(alone["loss_over_time"]) <= 21 and alone["train_loss"] > rows[0]["measures"]["train_loss"]
    assert rows[0]["measures"]["loss_over_time"] == losses


# ------------------------------------------------------------------------------------------------ groups


def test_groups_hold_every_cell_once_with_networks_of_one_shape_only():
    cells = [
        cell(width=width, depth=depth, seed=seed, init=init)
        for width in (16, 64, 1024)
        for depth in (2, 3)
        for seed in range(5)
        for init in ("he", "lecun")
    ]
    cells += [cell(width=16, momentum=0.9), cell(width=16, weight_decay=0.1), cell(width=1)]
    for device, processes in (("cpu", 1), ("cpu", 2), ("cuda", 1)):
        found = groups(cells, device, processes)
        assert sorted(c.key for group in found for c in group) == sorted(c.key for c in cells)
        for group in found:
            assert len({(c.width, c.depth, c.momentum, c.weight_decay) for c in group}) == 1
            assert len(group) <= group_size(group[0], device)
    sizes = [len(group) for group in groups(cells, "cpu", 2)]
    assert max(sizes) == 5 and sizes[-3:] == [1, 1, 1]  # ten alike are shared by two workers
    assert not any(batchable(c) for c in cells[-3:])
    assert groups(cells, "cuda", 16) == groups(cells, "cuda", 1)  # one process feeds a GPU, whatever the cores


@pytest.mark.parametrize(
    "other",
    [{"loss": "squared"}, {"scaling": "unit"}, {"epochs": 4}, {"batch_size": 5}, {"n_train": 20}, {"points": 9}],
)
def test_what_a_group_shares_is_not_mixed(other):
    cells = [cell(), cell(**other)]
    assert groups(cells, "cpu") == [[one] for one in cells]


def test_a_group_that_fails_is_tried_in_halves_until_the_cell_at_fault_is_alone(monkeypatch):
    """As when memory does not suffice for the group."""
    cells, tried = [cell(seed=seed) for seed in range(6)], []
    real = workers.measure_group

    def limited(group, *others):
        tried.append(len(group))
        if len(group) > 2 or cells[4] in group:
            raise torch.OutOfMemoryError("not enough memory")
        return real(group, *others)

    monkeypatch.setattr(workers, "measure_group", limited)
    rows = train_missing.run(cells, device="cpu")
    assert list(rows["status"]) == ["ok"] * 4 + ["failed", "ok"]
    assert "not enough memory" in rows["reason"][4]
    assert tried[0] == 6 and max(tried[1:]) == 3


# ------------------------------------------------------------------------------------------------ extremes


def test_weights_as_small_as_the_widest_non_lazy_net_do_not_underflow():
    """width 16384, beta = 1/width^3: entries of J are 1e-23, and their squares below what float32 holds."""
    tiny = Cell(width=16384, depth=2, init="power", power=3.0, precision="float32")
    nets = Ensemble([tiny], "cpu", torch.float32)
    eigenvalues = nets.eigenvalues(torch.rand(3, 64))[0]
    std = layer_stds("power", width=16384, depth=2, d_in=64, d_out=10, power=3.0)[0]
    assert std == 16384.0**-3
    # E trace J J^T = d_out d_in m std^4 / 2; its relative spread over weights is below 20/sqrt(m)
    assert eigenvalues.sum(1).numpy() == pytest.approx(10 * 64 * 16384 * std**4 / 2, rel=20 / math.sqrt(16384))
    assert (eigenvalues > 0).all()


# ------------------------------------------------------------------------------------------------ written for a GPU


def test_the_largest_network_holds_little_more_than_its_weights_twice(monkeypatch):
    """2.16e9 parameters, on a device that has shapes and no memory."""
    wide = Cell(width=16384, depth=10, dataset="mnist")
    sizes = [784, *[16384] * 9, 10]
    empty = [torch.empty(b, a, device="meta") for a, b in itertools.pairwise(sizes)]
    monkeypatch.setattr("robustkit.training.ensemble.build", lambda one: types.SimpleNamespace(weights=empty))
    x = torch.empty(1000, 784, device="meta")
    with Memory() as memory:
        memory.held = {w.untyped_storage()._cdata for w in empty}  # where the weights are drawn is not the GPU
        nets = Ensemble([wide], "meta", torch.float32)
        start = [w.clone() for w in nets.network(0)]
        steps = [nets._step(x, torch.empty(1000, 10, device="meta"), size) for size in (64, 32)]
        for step, size in zip(steps, (64, 32), strict=True):
            step(torch.zeros(1, size, dtype=torch.int64, device="meta"))
        nets.logits(x)
        layer_norms(nets.network(0), start)  # what kappa is made of
        nets.eigenvalues(x)
    assert memory.peak < 2.1 * 4 * wide.parameters


class Memory(TorchDispatchMode):
    """The most bytes that tensors made under it held at once."""

    def __init__(self):
        super().__init__()
        self.held, self.now, self.peak = set(), 0, 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        found = function(*arguments, **(named or {}))
        for tensor in tree_leaves(found):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.held:
                self.held.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        return found

    def _free(self, name, size):
        self.held.discard(name)
        self.now -= size


# ------------------------------------------------------------------------------------------------ on a GPU


@needs_gpu
@pytest.mark.parametrize("fields", KINDS[:-1], ids=named)
def test_the_gpu_trains_as_the_cpu_does(fields):
    cells = [cell(**fields, seed=seed) for seed in (0, 3, 5)]
    here, there = trained(Ensemble, cells), trained(Ensemble, cells, device="cuda")
    for s in range(3):
        assert distance(there.network(s), here.network(s)) < 1e-12


@needs_gpu
def test_a_row_from_the_gpu_is_that_of_the_cpu():
    cells = [cell(seed=seed, n_train=200, batch_size=16) for seed in (0, 1)]
    for row, other in zip(measure_group(cells, "cuda"), measure_group(cells), strict=True):
        assert row["status"] == "ok" and row["engine"]["device"] != "cpu"
        for name, value in other["measures"].items():
            assert np.allclose(row["measures"][name], value, rtol=1e-9, atol=0), name


@needs_gpu
def test_the_gpu_holds_little_more_than_the_weights_twice():
    wide = Cell(width=4096, depth=10, n_train=256, epochs=1, points=8)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    measure_group([wide], "cuda")
    used = torch.cuda.max_memory_allocated() - before
    assert used < 2.1 * 4 * wide.parameters + 400 * 2**20  # activations, Jacobians and the workspace of the products


@needs_gpu
def test_a_group_too_large_for_the_gpu_is_halved():
    """The limit is real: this process may hold the weights and the start of 12 of the 16 networks."""
    cells = [Cell(width=1024, depth=20, n_train=256, epochs=1, points=8, seed=seed) for seed in range(16)]
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    need = 2 * 4 * cells[0].parameters * 12
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + need) / total)
        rows = train_missing.run(cells, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert list(rows["status"]) == ["ok"] * 16
    assert {row["group"] for row in rows["engine"]} <= {1, 2, 4, 8}
