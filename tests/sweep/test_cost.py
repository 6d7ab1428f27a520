"""Estimates of time and memory: they grow with the work, for every cell there may be."""

import pytest
import torch

from robustkit.cell import Cell
from robustkit.sweep import cost
from robustkit.sweep.cost import estimate_seconds, memory_bytes
from robustkit.training.loop import Loop


def cell(width=16, seed=0, **fields):
    return Cell(**{"width": width, "depth": 2, "seed": seed, "epochs": 10, "points": 16} | fields)


@pytest.fixture
def steady(monkeypatch):
    """A machine without noise: seconds per step, per point of the loss and per point of the stability."""
    monkeypatch.setattr(cost, "_speeds", lambda cell, networks, device: (1e-6 * networks * cell.width, 0.0, 0.0))


def seconds(cells, workers=1):
    return estimate_seconds(cells, "cpu", workers)


def test_time_is_that_of_every_step(steady):
    few = cell(epochs=10)
    assert seconds([few]) == pytest.approx(16e-6 * few.steps)
    assert seconds([cell(epochs=1000)]) == pytest.approx(100 * seconds([few]))
    assert seconds([cell(4096)]) == pytest.approx(seconds([cell(1024)]) * cell(4096).flops / cell(1024).flops)


def test_workers_share_the_time_and_cost_a_start(steady):
    cells = [cell(width, seed, epochs=100_000) for width in (16, 32) for seed in range(4)]
    alone = seconds(cells)
    assert alone == pytest.approx(1e-6 * cells[0].steps * 4 * (16 + 32))
    assert alone / 2 < seconds(cells, workers=2) < alone  # the start of a process takes seconds, not a quarter hour


def test_a_measured_speed_is_kept_for_the_next_cell():
    few, many = (estimate_seconds([cell(epochs=epochs)], "cpu") for epochs in (10, 1000))
    assert 0 < few < many < 100 * few  # beside the steps, what is measured along training is a fixed part


def test_a_model_is_timed_in_the_precision_that_it_is_trained_in(monkeypatch):
    """A ResNet-110 was timed in full precision, and trains in TF32."""
    seen = []

    class Seen(Loop):
        def train(self, *given, **named):
            seen.append((self.dtype, torch.backends.cudnn.conv.fp32_precision))
            super().train(*given, **named)

    monkeypatch.setattr(cost, "engine_of", lambda one: Seen)
    for precision in ("float64", "tf32", "float32"):
        assert estimate_seconds([cell(momentum=0.5, precision=precision)], "cpu") > 0
    assert seen == [(torch.float64, "ieee"), (torch.float32, "tf32"), (torch.float32, "ieee")]


@pytest.mark.parametrize(
    "fields",
    [
        {"dataset": "mnist", "batch_size": 2048, "n_train": 2048},
        {"loss": "squared", "target": "parity", "n_train": 8, "batch_size": 8},
        {"init": "power", "power": 3.0, "precision": "float64"},
        {"momentum": 0.9},
        {"stop_loss": 0.1, "stop_every": 20},
        {"width": 1},
    ],
    ids=str,
)
def test_every_cell_has_an_estimate(fields):
    assert 0 < estimate_seconds([cell(**fields)], "cpu") < 3600


def test_memory_grows_with_the_weights():
    assert memory_bytes(cell(64, depth=4)) > memory_bytes(cell(64)) > 0
    assert memory_bytes(cell(64, precision="float64")) == 2 * memory_bytes(cell(64))
