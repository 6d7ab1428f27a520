"""What runs will cost: memory, and the time that this machine takes, from a quick measurement."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ..cell import EVALUATION_POINTS, FRACTIONS, Cell
from ..data import stream_generator
from ..files import ROOT
from ..training.cuda_graph import GraphedStep
from ..training.ensemble import groups
from ..training.group import LOSS_POINTS, dtype_of, engine_of, mean_losses, torch_set_for
from ..training.loop import CHUNK, targets
from ..training.measures import ball_norms

CONTROL_GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def relative_cost(cell: Cell) -> float:
    """Steps times a fixed cost per layer and a cost per weight: good enough for the share of a progress bar."""
    return cell.steps * (1 + cell.depth) + cell.flops / (6 * 64 * 10_000)


def memory_bytes(cell: Cell) -> int:
    """Weights now and at the start, the dataset twice, and what a batch of images leaves for the backward pass."""
    data, size = cell.data, dtype_of(cell).itemsize
    needed = 2 * size * (cell.parameters + (data.n_train + data.n_test) * cell.d_in)
    if cell.model != "fcn":  # before and after normalisation, and after the ReLU
        needed += 3 * size * 256 * sum(layer.fan_out * layer.positions for layer in cell.layers)
    return needed


def room_bytes(device: str) -> int:
    """What a run may take: all memory of the machine or of its control groups; what is free on a GPU."""
    if device != "cpu":
        return torch.cuda.mem_get_info(device)[0]
    room = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [sys.maxsize]
    groups = [":memory:/", "::/"]  # of a container, which sees its own group as the root
    with contextlib.suppress(OSError):
        groups += OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    for line in groups:
        _, kind, path = line.split(":", 2)
        limit = {"": "memory.max", "memory": "memory.limit_in_bytes"}.get(kind)  # versions 2 and 1
        for group in (Path(path), *Path(path).parents) if limit else ():  # a parent's limit holds too
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                room.append(int((CONTROL_GROUPS / kind / group.relative_to("/") / limit).read_text(encoding="utf-8")))
    return min(room)


def estimate_seconds(cells: Sequence[Cell], device: str, workers: int = 1) -> float:
    """Seconds that `run` will take, from a quick measurement of each shape on this machine.

    Widths above 1024 (4096 on a GPU) are taken in proportion to their operations.
    """
    widest, spent = 1024 if device == "cpu" else 4096, [0.0] * (workers if device == "cpu" else 1)
    for group in groups(cells, device, workers):  # each goes to the worker that is free first
        cell, info = group[0], group[0].data
        plain = {"seed": 0, "init": "he", "power": None, "gain": None, "alpha": 1.0, "scaling": "raw", "epochs": 1000}
        plain |= {"lr": 1e-9, "lr_rule": "fixed", "lr_decay": 1.0, "milestones": ()}
        plain |= {"stop_loss": None, "stop_every": None}
        narrow = dataclasses.replace(cell, width=min(cell.width, widest), **plain)
        step, loss, stability = _speeds(narrow, len(group), device)
        losses = len(EVALUATION_POINTS) * min(LOSS_POINTS[cell.model], cell.train_points)
        losses += 2 * (cell.train_points + info.n_test) + int(cell.epochs) * info.n_test * (cell.model == "resnet")
        seconds = cell.steps * step + losses * loss + (len(FRACTIONS) + 2) * cell.points * stability
        growth = cell.flops / dataclasses.replace(cell, width=narrow.width).flops
        spent[spent.index(min(spent))] += seconds * growth
    return max(spent) + (_start_seconds() if len(spent) > 1 else 0)


@functools.cache
def _start_seconds() -> float:
    """Seconds until a new worker process has loaded the package."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import robustkit.sweep.workers, torch._dynamo"], cwd=ROOT, check=True)
    return time.perf_counter() - started


@functools.cache
def _speeds(cell: Cell, networks: int, device: str) -> tuple[float, float, float]:
    """Seconds per step, per point of the loss and per point of the stability, for so many networks together.

    In the precision that the cell is trained in, and past the capture of the step.
    """
    dtype, every, times = dtype_of(cell), 8 if cell.model == "fcn" else 1, []
    early = 2 if device == "cpu" else GraphedStep.EARLY + 1  # observations: warming up, and capturing the step
    x, y = _noise(cell.train_points, cell.data.shape)
    x, y = x.to(device, dtype), (y % cell.d_out if cell.target == "class" else y).to(device)

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def observe(_) -> list[bool]:
        times.append(now())
        return [len(times) < early + 3 or times[-1] - times[early] < 0.2] * networks

    with torch_set_for(cell, device):
        nets = engine_of(cell)([cell] * networks, device, dtype)
        nets.train(x, y, evaluate_at=range(0, cell.steps, every), observe=observe)
        seconds = [(times[-1] - times[early]) / (every * (len(times) - 1 - early))]
        # A GPU takes as long for one as for many; a deep convolutional net takes long for a few.
        few = CHUNK if device != "cpu" else 200 if cell.model == "fcn" else 4
        points, goals = x[:few], targets(y[:few], cell, dtype)
        for measured in (lambda: mean_losses(nets, points, goals, cell), lambda: ball_norms(nets, points)):
            measured()
            started = now()
            measured()
            seconds.append((now() - started) / len(points))
    return tuple(seconds)


@functools.lru_cache(1)
def _noise(n: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = stream_generator(0, "timing")
    return torch.rand(n, *shape, generator=generator), torch.randint(1000, (n,), generator=generator)
