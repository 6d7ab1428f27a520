"""Training on a GPU, tried on a GPU of paper: the same rows, one graph per learning rate, and each fault is found."""

import pytest
import torch
from paper_gpu import OnGpu, paper_gpu

from robustkit.cell import Cell
from robustkit.sweep import train_missing
from robustkit.sweep.cost import estimate_seconds
from robustkit.sweep.device import resolve_device
from robustkit.training import checkpoint, ensemble, loop
from robustkit.training.cuda_graph import GraphedStep
from robustkit.training.ensemble import Ensemble
from robustkit.training.loop import Loop
from robustkit.training.measures import measure_group
from robustkit.training.remeasure import FURTHER

pytestmark = pytest.mark.usefixtures("one_thread")

# 70 points in batches of 16: five steps per epoch, the last of six points; the rate falls before steps 10, 14 and 18.
SHORT = {"n_train": 70, "batch_size": 16, "epochs": 4, "lr": 0.1, "points": 8}
RESNET = {"model": "resnet", "width": 4, "depth": 8, "augment": "crop_flip", "scaling": "standard"}
RESNET |= {"momentum": 0.9, "weight_decay": 1e-4}
GROUPS = {
    "fcn": [Cell(**SHORT, width=8, depth=3, seed=s, init=i) for s, i in ((0, "he"), (1, "lecun"), (2, "ntk"))],
    "fcn that rests": [Cell(**SHORT, width=8, depth=2, seed=s, stop_loss=stop) for s, stop in ((0, None), (1, 2.2))],
    "parity": [Cell(**SHORT, width=8, depth=2, init="power", power=1.5, loss="squared", target="parity")],
    "momentum": [Cell(**SHORT, width=8, depth=2, momentum=0.9, precision="float64")],
    "cnn": [Cell(**SHORT, width=4, depth=4, model="cnn", head="flatten")],
    "resnet": [Cell(**SHORT, **RESNET)],
}


@pytest.fixture(params=GROUPS)
def group(request):
    return GROUPS[request.param]


def measures(rows):
    return [row["measures"] for row in rows]


def test_rows_from_a_gpu_of_paper_are_those_of_the_cpu_to_the_bit(group, monkeypatch):
    expected = measures(measure_group(group))
    with paper_gpu(monkeypatch):
        rows = measure_group(group, "cuda")
    assert measures(rows) == expected
    assert {row["engine"]["device"] for row in rows} == {"a GPU of paper"}


@pytest.mark.parametrize(("name", "of"), [*((name, "parity") for name in FURTHER), ("attack", "cnn")])
def test_further_measures_too(name, of, monkeypatch):
    expected = measures(measure_group(GROUPS[of], kind=FURTHER[name]))
    with paper_gpu(monkeypatch):
        assert measures(measure_group(GROUPS[of], "cuda", kind=FURTHER[name])) == expected


def test_an_interrupted_run_resumes_with_the_same_bits(group, monkeypatch):
    expected, save = measures(measure_group(group)), checkpoint.save

    def save_and_stop(key, saved, device):
        save(key, saved, device)
        if saved.step == 12 and key == group[-1].key:
            raise KeyboardInterrupt

    with paper_gpu(monkeypatch):
        with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
            interrupted.setattr(checkpoint, "SECONDS", 0)
            interrupted.setattr(checkpoint, "LONGEST", 0)
            interrupted.setattr(checkpoint, "save", save_and_stop)
            measure_group(group, "cuda")
        assert measures(measure_group(group, "cuda")) == expected


def test_a_step_is_captured_once_per_learning_rate_and_replayed(monkeypatch):
    """Of 20 steps, 16 have whole batches: 8, 4, 3 and 1 of them at one learning rate, whose first three are early."""
    made, replayed = [], []
    with paper_gpu(monkeypatch):
        graph = torch.cuda.CUDAGraph
        monkeypatch.setattr(graph, "replay", lambda self, real=graph.replay: replayed.append(self) or real(self))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(graph()) or made[-1])
        measure_group(GROUPS["cnn"], "cuda")
        assert [replayed.count(one) for one in made] == [5, 1, 0]


def test_a_gpu_is_found_planned_for_and_used(monkeypatch):
    group = GROUPS["fcn"]
    with paper_gpu(monkeypatch):
        assert estimate_seconds(group, resolve_device()) > 0
        rows = train_missing.run(group)
    assert set(rows["status"]) == {"ok"} and {engine["device"] for engine in rows["engine"]} == {"a GPU of paper"}
    assert [row["stability"] for row in measures(measure_group(group))] == list(rows["stability"])


# ------------------------------------------------------------------------------------------------ faults, planted


def train(cell, engine, device="cuda", points=70):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(points, 1, 8, 8, generator=generator), torch.arange(points) % 10
    nets = engine([cell], device, torch.float32)
    nets.train(x.to(device), y.to(device), evaluate_at=(), observe=lambda step: [True])
    return [weight.cpu() for weight in nets.network(0)]


@pytest.mark.parametrize("kind", ["fcn", "cnn", "resnet"])
def test_a_tensor_left_on_the_cpu_is_found(kind, monkeypatch):
    cell, real = GROUPS[kind][0], loop.targets
    with paper_gpu(monkeypatch):
        for module in (loop, ensemble):
            monkeypatch.setattr(module, "targets", lambda *given: real(*given).cpu())
        with pytest.raises(RuntimeError, match="found cuda:0 and cpu"):
            train(cell, Ensemble if kind == "fcn" else Loop)


@pytest.mark.parametrize("fault", ["a number is read", "a copy between CPU and GPU"])
def test_what_a_graph_cannot_hold_is_found_and_the_steps_are_made_without_one(fault, monkeypatch):
    """A failing capture left the caller on the stream of the capture, and ended the run."""
    calls = []

    def step(x):
        calls.append(float(x.sum()) if fault == "a number is read" else torch.ones(2).to("cuda"))
        total.add_(x)

    with paper_gpu(monkeypatch):
        total, graphed = torch.zeros(2, device="cuda"), GraphedStep(step)
        with pytest.warns(UserWarning, match=f"no CUDA graph .*{fault}") as said:
            for k in range(6):
                graphed(torch.full((2,), float(k), device="cuda"))
        assert len(said) == 1 and total.tolist() == [15, 15]


def test_a_batch_that_is_a_view_is_not_written_to(monkeypatch):
    """Batches are copied into the sample of the capture: where that was a view of the data, it overwrote them."""
    with paper_gpu(monkeypatch):
        x = torch.arange(12.0, device="cuda")
        total = torch.zeros(2, device="cuda")
        graphed = GraphedStep(lambda batch: total.add_(batch))
        for k in range(6):
            graphed(x[2 * k : 2 * k + 2])
        assert x.tolist() == list(range(12)) and total.tolist() == [30, 36]
        assert isinstance(total, OnGpu)


@pytest.mark.parametrize("kind", ["fcn", "cnn", "resnet"])
def test_a_capture_that_leaves_a_trace_is_found(kind, monkeypatch):
    """As where warming up moved weights or running statistics that nobody restored."""

    class Traced(GraphedStep):
        def _call_early(self, inputs):
            self.step(*inputs)
            super()._call_early(inputs)

    (*_, expected), engine = train(GROUPS[kind][0], Loop, "cpu"), Ensemble if kind == "fcn" else Loop
    with paper_gpu(monkeypatch):
        (*_, sound) = train(GROUPS[kind][0], engine)
        for module in (loop, ensemble):
            monkeypatch.setattr(module, "GraphedStep", Traced)
        (*_, traced) = train(GROUPS[kind][0], engine)
    assert torch.allclose(sound, expected, rtol=1e-4) and not torch.allclose(traced, expected, rtol=1e-4)
