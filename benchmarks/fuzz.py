"""Feed damaged, forged and random input to everything here that reads a file or a command line.

    python benchmarks/fuzz.py            # 100 000 inputs, some five minutes
    python benchmarks/fuzz.py 2000

Each input is read as what was written, to the last digit, or refused in the documented way: a sentence (InputError,
exit status 2), a ValueError of `store.decode`, a warning that names the file. Never another number, never a
traceback, never more memory than the input deserves. Input 17 of a reader is always the same.

Last run in full on 26 November 2026, on two shared cores under Linux with Python 3.11 and numpy 2.4: none wrong, at
most 33 MiB more, 290 seconds.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from fuzz_files import Feed, checkpoints, cifar_archives, decoder, mnist, own_data, row_files  # noqa: E402
from fuzz_words import cells, command_lines, notebook_parameters  # noqa: E402

SECONDS = 60  # that an input may take


class Reader(NamedTuple):
    """What is fed, its share of all inputs, and a maker of `feed`, which reads one input: "equal" or "refused"."""

    name: str
    share: float
    make: Callable[[Path], Feed]


class Result(NamedTuple):
    """What became of one reader's inputs; `problems` are those neither read as written nor refused as documented."""

    reader: str
    inputs: int
    refused: int
    equal: int
    mebibytes: float
    seconds: float
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
    """An input took more than a minute; no reader may take this for damage."""


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


def feed_all(count: int, seed: int = 0) -> Iterator[Result]:
    """Share out `count` inputs over all readers."""
    signal.signal(signal.SIGVTALRM, too_long)
    for place, reader in enumerate(READERS):
        with tempfile.TemporaryDirectory() as folder:
            feed, tally, problems = reader.make(Path(folder)), {"equal": 0, "refused": 0}, []
            forget_peak()
            before, started = peak_mebibytes(), time.perf_counter()
            inputs = round(reader.share * count)
            for number in range(inputs):
                signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
                try:
                    tally[feed(np.random.default_rng([seed, place, number]))] += 1
                except (Exception, TooLongError) as error:
                    problems.append(f"{reader.name}, input {number}: {type(error).__name__}: {error}"[:500])
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            grown, seconds = peak_mebibytes() - before, time.perf_counter() - started
        yield Result(reader.name, inputs, tally["refused"], tally["equal"], grown, seconds, problems)


def main() -> int:
    """Print a line a reader, then what went wrong."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    print(f"{'reader':20}{'inputs':>9}{'refused':>9}{'read equal':>12}{'wrong':>7}{'memory grew by':>16}{'time':>8}")
    problems = []
    for result in feed_all(count):
        print(f"{result.reader:20}{result.inputs:9}{result.refused:9}{result.equal:12}{len(result.problems):7}"
              f"{result.mebibytes:12.0f} MiB{result.seconds:6.0f} s", flush=True)  # fmt: skip
        problems += result.problems[:10]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
