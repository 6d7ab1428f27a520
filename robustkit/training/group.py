"""Train one group of networks and make a row of each, whatever is measured on them."""

from __future__ import annotations

import contextlib
import functools
import math
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy
import torch

from ..cell import FRACTIONS, Cell
from ..checks import InputError
from ..data import Dataset, fixed_points, load_dataset
from ..datasets import dataset_info
from ..files import ROOT
from . import checkpoint
from .ensemble import Ensemble, batchable
from .loop import CHUNK, Loop, loss_function, targets

# Training points on which the loss is followed along a run, the same for every network of a family.
LOSS_POINTS = {"fcn": 10_000, "cnn": 1_000, "resnet": 1_000}


class OutOfTimeError(RuntimeError):
    """The time given ran out before the end of a run."""


@functools.lru_cache(maxsize=2)
def _dataset(name: str, scaling: str, device: str, dtype: torch.dtype, sha256: str) -> Dataset:
    return load_dataset(name, scaling=scaling, device=device, dtype=dtype, sha256=sha256)


def dtype_of(cell: Cell) -> torch.dtype:
    """The type of the weights: float64 where the cell asks for it, else float32."""
    return torch.float64 if cell.precision == "float64" else torch.float32


def engine_of(cell: Cell) -> type:
    """What trains a cell: Ensemble where it can, else Loop."""
    return Ensemble if batchable(cell) else Loop


def over_time(column: str) -> bool:
    """Whether a column holds a list, one entry per evaluation point."""
    return column.endswith("_over_time") or column == "loss_at_stability"


@contextlib.contextmanager
def torch_set_for(cell: Cell, device: str) -> Iterator[None]:
    """One CPU thread, the precision that a cell asks for, else torch as it starts; afterwards as the caller had it.

    Several workers are faster than several threads, and on a CPU the bits depend neither on its cores nor on the
    caller's default dtype or device, autocast, gradient mode or precision switches.
    """
    backends = torch.backends
    switches = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = torch.get_num_threads(), torch.get_default_dtype(), [switch.fp32_precision for switch in switches]
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", torch.device(device).type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # a mode that costs time at each call
            stack.enter_context(torch.device("cpu"))
        precision = "tf32" if cell.precision == "tf32" else "ieee"
        stack.callback(_set_torch, *before, switches)
        _set_torch(1 if device == "cpu" else before[0], torch.float32, [precision] * len(switches), switches)
        yield


def _set_torch(threads: int, dtype: torch.dtype, precisions: Sequence[str], switches: Sequence) -> None:
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    for switch, precision in zip(switches, precisions, strict=True):
        switch.fp32_precision = precision


class GroupRun:
    """One run of the cells of a group: its data, training with checkpoints, divergence, stopping, and rows.

    A subclass adds the measures along the run (`observe`) and at its end (`final`). Networks are numbered
    s = 0, 1, .. as the cells are; `notes[s]` holds the "trace" of network s (lists over time), the "reason" why it
    diverged, and whether it is "going", that is trained further.
    """

    name: str | None = None  # of a further measure; None for the run's own row
    columns: tuple[str, ...]  # the measures that a row holds
    optional: tuple[str, ...] = ()  # measures that the rows of some cells hold in addition
    scale: str  # the measure that is 0 where every hidden unit is dead, or where numbers underflow
    points: int | None = None  # fixed test points, and training points, to measure on; None: the cell's own number

    def __init__(self, cells: Sequence[Cell], device: str, engine: type | None = None):
        self.started, self.cells, self.device = time.monotonic(), cells, device
        self.cell = cell = cells[0]
        dtype, count = dtype_of(cell), self.points or cell.points
        self.data = data = _dataset(cell.dataset, cell.scaling, device, dtype, cell.data.sha256)
        self.x, self.y = data.x_train[: cell.train_points], data.y_train[: cell.train_points]
        test = fixed_points(len(data.x_test), count, "test points").to(device)
        self.x_test, self.y_test = data.x_test[test], data.y_test[test]
        self.x_train = self.x[fixed_points(len(self.x), count, "train points").to(device)]
        followed = fixed_points(len(self.x), LOSS_POINTS[cell.model], "loss points").to(device)
        self.followed = self.x[followed], targets(self.y[followed], cell, dtype)
        self.nets = (engine or engine_of(cell))(cells, device, dtype)
        # A short run reaches several fractions at one step.
        self.stability_times = Counter(round(f * cell.steps) for f in FRACTIONS)
        self.stop_steps = frozenset().union(*(cell.stop_steps for cell in cells))
        self.loss_steps, self.other_steps = {*self.stability_times, *self.stop_steps}, set()
        self.begin()
        traces = [{name: [] for name in self.columns if over_time(name)} for _ in cells]
        self.notes = [{"trace": trace, "reason": None, "going": True} for trace in traces]

    @classmethod
    def identity(cls, cell: Cell) -> dict:
        """The key of a cell's row; for a further measure also what else tells it from the run's own row."""
        return {"key": cell.key}

    @classmethod
    def key(cls, cell: Cell) -> str:
        """The key of a cell's row."""
        return cls.identity(cell)["key"]

    def begin(self) -> None:
        """Keep what is needed of the networks as initialised; add to `loss_steps` and `other_steps`."""

    def observe(self, step: int, losses: list[float] | None) -> None:
        """Add to the traces of the networks that are going, before `step`; losses is None at `other_steps` alone."""

    def final(self, sound: Sequence[int]) -> Iterator[dict]:
        """Measures at the end of the run, of each of the networks `sound`: those that did not diverge."""

    def rows(self, deadline: float) -> list[dict]:
        """Train the networks and return their rows; raises OutOfTimeError when time.monotonic() passes the deadline.

        A long run saves a checkpoint per minute, from which the next run of the same cells resumes.
        """
        self.deadline, self.due = deadline, time.monotonic() + checkpoint.SECONDS
        fresh = [checkpoint.Saved(0, *parts) for parts in zip(self.nets.first_states(), self.notes, strict=True)]
        if resume := checkpoint.load(dict(zip(map(self.key, self.cells), fresh, strict=True)), self.device):
            self.notes = [saved.notes for saved in resume]
            self.started -= self.notes[0]["seconds"]
        options = {"evaluate_at": self.loss_steps | self.other_steps, "observe": self._look, "save": self._save}
        self.nets.train(self.x, self.y, resume=resume, **options)
        if self._data_changed():
            reason = f"dataset {self.cell.dataset!r} was changed during the run"
            return [
                failed_row(cell, self.started, reason, device=self.device, kind=type(self)) for cell in self.cells
            ]
        sound = [s for s, note in enumerate(self.notes) if not note["reason"]]
        final = dict(zip(sound, self.final(sound), strict=True))
        return [self._row(s, final.get(s)) for s in range(len(self.cells))]

    def _data_changed(self) -> bool:
        with contextlib.suppress(InputError):  # it may be gone: what was read is what the key names
            return dataset_info(self.cell.dataset) != self.cell.data
        return False

    def _look(self, step: int) -> list[bool]:
        losses = mean_losses(self.nets, *self.followed, self.cell) if step in self.loss_steps else None
        for note, loss in zip(self.notes, losses or (), strict=bool(losses)):
            if note["going"] and not math.isfinite(loss):
                note |= {"going": False, "reason": f"the training loss is {loss} at step {step}"}
        self.observe(step, losses)
        if step in self.stop_steps:
            for cell, note, loss in zip(self.cells, self.notes, losses, strict=True):
                note["going"] = note["going"] and loss > (cell.stop_loss or 0)
        return [note["going"] for note in self.notes]

    def _save(self, step: int, state: Callable[[], list[dict]]) -> None:
        """Before each step: a checkpoint now and then, and one more where time has run out."""
        began = time.monotonic()
        if began < min(self.due, self.deadline):
            return
        for cell, note, own in zip(self.cells, self.notes, state(), strict=True):
            saved = checkpoint.Saved(step, own, note | {"seconds": began - self.started})
            checkpoint.save(self.key(cell), saved, self.device)
        if began > self.deadline:
            raise OutOfTimeError
        took = time.monotonic() - began
        self.due = time.monotonic() + min(max(checkpoint.SECONDS, 20 * took), checkpoint.LONGEST)

    def _row(self, s: int, final: dict | None) -> dict:
        cell, trace, reason = self.cells[s], self.notes[s]["trace"], self.notes[s]["reason"]
        # The run's own row keeps what was observed before the network diverged.
        measures = dict.fromkeys(self.columns) | ({} if self.name else trace)
        if final:
            measured = trace | final
            if bad := [name for name, value in measured.items() if not _finite(value)]:
                reason = f"{bad[0]} is not finite"
                measures |= dict.fromkeys(bad)
            elif measured[self.scale] == 0:
                small = f"numbers are too small for {str(self.nets.dtype).removeprefix('torch.')}"
                reason = f"the stability is exactly 0: every hidden unit is dead, or {small}"
            else:
                measures |= measured
        status, facts = "diverged" if reason else "ok", {"engine": self.nets.name, "group": len(self.cells)}
        row = row_of(cell, status, reason, measures, self.device, self.started, **facts)
        return row | self.identity(cell)


def _finite(value) -> bool:
    return value is None or (all(map(_finite, value)) if isinstance(value, list) else math.isfinite(value))


def mean_losses(nets, x, y, cell: Cell) -> list[float]:
    """Mean loss of each network over points x with `targets` y."""
    loss_of = loss_function(cell.loss)
    return mean_over_points(nets, x, y, lambda outputs, goals: loss_of(outputs, goals).double() * len(goals))


def accuracies(nets, x, y, cell: Cell) -> list[float]:
    """Share of points that each network classifies as y; for one output, agreement in sign with the parity of y."""

    def right(outputs, classes):
        parity = cell.target == "parity"
        return ((outputs[:, 0] > 0) == (classes % 2 == 1) if parity else outputs.argmax(1) == classes).sum()

    return mean_over_points(nets, x, y, right)


def mean_over_points(nets, x, y, total_of: Callable) -> list[float]:
    """Mean over points x for each network; total_of(outputs, goals) is the sum over a part of them, a tensor."""
    totals = torch.zeros(len(nets.cells), dtype=torch.float64, device=x.device)
    for part, goals in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        totals += torch.stack([total_of(outputs, goals) for outputs in nets.logits(part)])
    return [total / len(x) for total in totals.tolist()]  # the one number read from a GPU


def failed_row(cell: Cell, started: float, reason: str, *, device: str, kind: type[GroupRun]) -> dict:
    """The row of a run that did not come to its end."""
    return row_of(cell, "failed", reason, dict.fromkeys(kind.columns), device, started) | kind.identity(cell)


def row_of(
    cell: Cell, status: str, reason: str | None, measures: dict, device: str, started: float, *, engine=None, group=1
) -> dict:
    """A row as the store takes it; its seconds, since `started` by time.monotonic(), are its share of the group's."""
    on_gpu = device.startswith("cuda")
    return {
        "key": cell.key,
        "status": status,
        "cell": cell.as_dict(),
        "reason": reason,
        "measures": measures,
        "engine": {
            "name": engine,
            "device": torch.cuda.get_device_name(device) if on_gpu and torch.cuda.is_available() else device,
            "dtype": str(dtype_of(cell)).removeprefix("torch."),
            "tf32": on_gpu and cell.precision == "tf32",
            "threads": torch.get_num_threads(),
            "group": group,
        }
        | ({} if on_gpu else {"vectors": torch.backends.cpu.get_cpu_capability()}),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "commit": commit(),
        "seconds": round((time.monotonic() - started) / group, 3),
    }


@functools.cache
def commit() -> str | None:
    """The commit of this copy of the package, "-dirty" after it where files have changed; None outside of git."""
    if not (ROOT / ".git").exists():  # it may lie in a repository of something else
        return None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    return None
