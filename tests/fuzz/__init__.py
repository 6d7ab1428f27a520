"""Damaged, forged and random input for everything here that reads a file or a command line.

Each input is read as what was written, to the last digit, or refused in the documented way: a sentence (InputError,
exit status 2), a ValueError of `store.decode`, a warning that names the file. Never another number, never a
traceback, never more memory than the input deserves. Input 17 of a reader is always the same.
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .files import Feed, checkpoints, cifar_archives, decoder, mnist, own_data, row_files
from .words import cells, command_lines, notebook_parameters

SECONDS = 60  # that an input may take
MEBIBYTES = 300  # by which memory may grow: a third of what the bombs among the inputs unfold to


class Reader(NamedTuple):
    """What is fed, its share of all inputs, and a maker of what reads one input and says "equal" or "refused"."""

    name: str
    share: float
    make: Callable[[Path], Feed]


class Result(NamedTuple):
    """What became of a reader's inputs; `problems` are those neither read as written nor refused as documented."""

    inputs: int
    refused: int
    equal: int
    mebibytes: float
    problems: list[str]


READERS = [
    Reader("a line of rows", 0.26, decoder),
    Reader("a file of rows", 0.1, row_files),
    Reader("a user's .npz", 0.2, own_data),
    Reader("MNIST's files", 0.06, mnist),
    Reader("CIFAR's .tar.gz", 0.1, cifar_archives),
    Reader("a checkpoint", 0.06, checkpoints),
    Reader("command lines", 0.06, command_lines),
    Reader("notebook parameters", 0.08, notebook_parameters),
    Reader("a cell's fields", 0.08, cells),
]


class TooLongError(BaseException):
    """An input took more than a minute; not an Exception, so that no reader takes it for damage."""


def too_long(*_) -> None:
    """End the input that is being read."""
    raise TooLongError("more than a minute")


def forget_peak() -> None:
    """Let `peak_mebibytes` start anew, where the kernel can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mebibytes() -> float:
    """The most memory that this process has held since `forget_peak`, or ever."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def feed(reader: Reader, count: int, folder: Path) -> Result:
    """Its share of `count` inputs, in an empty folder."""
    place, problems, tally = READERS.index(reader), [], {"equal": 0, "refused": 0}
    read_one = reader.make(folder)
    forget_peak()
    before = peak_mebibytes()
    inputs = round(reader.share * count)
    handler = signal.signal(signal.SIGVTALRM, too_long)
    for number in range(inputs):
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            tally[read_one(np.random.default_rng([0, place, number]))] += 1
        except (Exception, TooLongError) as error:
            problems.append(f"{reader.name}, input {number}: {type(error).__name__}: {error}"[:500])
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, handler)
    return Result(inputs, tally["refused"], tally["equal"], peak_mebibytes() - before, problems)
