"""What trainings will cost: memory, and the time that this machine takes, from a quick measurement."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..cell import EVALUATION_POINTS, FRACTIONS, Cell, dataset_info
from ..data import stream_generator
from ..files import ROOT
from ..training.ensemble import groups
from ..training.group import LOSS_POINTS, dtype_of, engine_of, mean_losses, torch_set_for
from ..training.loop import CHUNK, targets
from ..training.measures import ball_norms

CONTROL_GROUP = Path("/sys/fs/cgroup")


def relative_cost(cell: Cell) -> float:
    """Steps times a fixed cost a layer and a cost a weight: good enough to share out a progress bar."""
    return cell.steps * (1 + cell.depth) + cell.flops / (6 * 64 * 10_000)


def memory_bytes(cell: Cell) -> int:
    """Weights now and at the start, the dataset twice, and what a batch of images leaves for the backward pass."""
    data = dataset_info(cell.dataset)
    size = 8 if cell.precision == "float64" else 4
    found = 2 * size * (cell.parameters + (data.n_train + data.n_test) * cell.d_in)
    if cell.model != "fcn":  # before and after normalisation, and after the ReLU
        found += 3 * size * 256 * sum(layer.fan_out * layer.positions for layer in cell.layers)
    return found


def room_bytes(device: str) -> int:
    """What a training may take: all memory of the machine or of its container; what is free on a GPU."""
    if device != "cpu":
        return torch.cuda.mem_get_info(device)[0]
    room = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [sys.maxsize]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of control groups, version 2 and 1
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            room.append(int((CONTROL_GROUP / name).read_text()))
    return min(room)


def estimate_seconds(
    cells: Sequence[Cell], device: str, workers: int = 1, *, speeds: Callable | None = None
) -> float:
    """Seconds that `run` will take, from a quick measurement of each shape on this machine.

    Widths above 1024 (4096 on a GPU) are taken in proportion to their operations. speeds: replaces the measurement,
    `_speeds`.
    """
    speeds, widest = speeds or _speeds, 1024 if device == "cpu" else 4096
    spent = [0.0] * (workers if device == "cpu" else 1)
    for group in groups(cells, device, workers):  # each goes to the worker that is free first
        cell, width = group[0], min(group[0].width, widest)
        plain = {"seed": 0, "init": "he", "power": None, "gain": None, "alpha": 1.0, "scaling": "raw", "epochs": 1000}
        plain |= {"lr": 1e-9, "lr_rule": "fixed", "lr_decay": 1.0, "milestones": (), "stop_loss": None}
        step, loss, jacobian = speeds(dataclasses.replace(cell, width=width, **plain), len(group), device)
        everything = cell.train_points + dataset_info(cell.dataset).n_test
        losses = len(EVALUATION_POINTS) * min(LOSS_POINTS[cell.model], cell.train_points) + 2 * everything
        losses += int(cell.epochs) * dataset_info(cell.dataset).n_test if cell.model == "resnet" else 0
        seconds = cell.steps * step + losses * loss + (len(FRACTIONS) + 2) * cell.points * jacobian
        growth = cell.flops / dataclasses.replace(cell, width=width).flops
        spent[spent.index(min(spent))] += seconds * growth
    return max(spent) + (_start_seconds() if len(spent) > 1 else 0)


@functools.cache
def _start_seconds() -> float:
    """Seconds until a new worker process has loaded the package."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import robustkit.sweep, torch._dynamo"], cwd=ROOT, check=True)
    return time.perf_counter() - started


@functools.cache
def _speeds(cell: Cell, networks: int, device: str) -> tuple[float, float, float]:
    """Seconds a step, a point of the loss and a point of the stability, for so many networks together."""
    x, y = _noise(cell.train_points, dataset_info(cell.dataset).shape, device)
    every = 8 if cell.model == "fcn" else 1
    y = y % cell.d_out if cell.target == "class" else y
    times = []

    def observe(_) -> list[bool]:
        times.append(_now(device))
        return [len(times) < 5 or times[-1] - times[2] < 0.2] * networks

    with torch_set_for(cell, device):
        nets = engine_of(cell)([cell] * networks, device, dtype_of(cell))
        nets.train(x.to(nets.dtype), y, evaluate_at=range(0, cell.steps, every), observe=observe)
        seconds = [(times[-1] - times[2]) / (every * (len(times) - 3))]
        # A GPU takes as long for one as for many; a deep convolutional net takes long for a few.
        few = CHUNK if device != "cpu" else 200 if cell.model == "fcn" else 4
        points, goals = x[:few].to(nets.dtype), targets(y[:few], cell, nets.dtype)
        for measured in (lambda: mean_losses(nets, points, goals, cell), lambda: ball_norms(nets, points)):
            measured()
            started = _now(device)
            measured()
            seconds.append((_now(device) - started) / len(points))
    return tuple(seconds)


@functools.lru_cache(1)
def _noise(n: int, shape: tuple[int, ...], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = stream_generator(0, "timing")
    return torch.rand(n, *shape, generator=generator).to(device), torch.randint(1000, (n,), generator=generator).to(
        device
    )


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()
