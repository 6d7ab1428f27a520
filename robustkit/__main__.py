"""Reproduce the paper's figures and tables: train the networks behind them, and report what they show."""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from concurrent.futures import BrokenExecutor
from pathlib import Path

from .cell import Cell
from .checks import InputError, check_choice, check_number
from .files import ROOT
from .profiles import NOTEBOOKS, PROFILES, REPEATED, named_cells
from .report import notebooks
from .sweep import locks, store

PYTEST = ("pytest", "-q", "-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")

# Each command imports PyTorch or the notebook tools, which take seconds, where it needs them.


class Unbroken:
    """A stream whose failures, of a full disk or a closed pipe, end nothing: from the first on it leads nowhere."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        return self._try(self.stream.write, text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, call, *words):
        try:
            return call(*words)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def main(words: list[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 if something failed, 2 on bad input, 130 or 143 when stopped."""
    with contextlib.redirect_stdout(Unbroken(sys.stdout)), contextlib.redirect_stderr(Unbroken(sys.stderr)):
        return _main(words)


def _main(words: list[str] | None) -> int:
    chosen = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        _check(chosen)
        return 0 if chosen.check else _attempt(chosen.function, chosen)
    except InputError as error:
        print(f"robustkit: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as stop:
        print("\nstopped; finished runs are saved, and the same command resumes", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else stop.code


def _check(chosen: argparse.Namespace) -> None:
    """Refuse at once what can be refused without PyTorch. Raises InputError."""
    for profile in chosen.profiles if chosen.profile is None else [chosen.profile]:
        check_choice("profile", profile, PROFILES)
    for number in chosen.only:
        check_choice("--only", number, NOTEBOOKS)
    check_number("workers", chosen.workers, low=1, high=1000, integer=True)
    check_number("minutes", chosen.minutes, above=0, optional=True)
    chosen.parameters = dict(map(_parameter, chosen.parameters))
    if chosen.parameters:
        notebooks.check_parameters(notebooks.notebooks(chosen.only), chosen.parameters)


def _parameter(assignment: str) -> tuple[str, object]:
    name, equals, value = assignment.partition("=")
    if not equals:
        raise InputError(f"-p is {assignment!r}, but must be NAME=VALUE")
    if name == "profile":
        raise InputError(f"-p is {assignment!r}, but a profile is named without -p")
    with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return name, ast.literal_eval(value)
    return name, value


def _attempt(function, chosen: argparse.Namespace) -> int:
    """The exit status of one command: 1 if it raises anything but InputError."""
    try:
        return function(chosen)
    except InputError:
        raise
    except BrokenExecutor:
        print("robustkit: a worker process died (killed, or out of memory); finished runs are saved", file=sys.stderr)
    except (OSError, store.ConflictError) as error:
        print(f"robustkit: {error}", file=sys.stderr)
    except Exception:
        traceback.print_exc()
    return 1


def _list_failed(sentences: list[str]) -> int:
    for sentence in sentences:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if sentences else 0


# ---------------------------------------------------------------------------------------------- commands


def reproduce(chosen: argparse.Namespace) -> int:
    """Train what each profile lacks, run its notebooks, and write figures, tables, claims and the HTML report."""
    failed = []
    for profile in chosen.profiles or ["smoke", *["shipped"] * store.SHIPPED.exists()]:
        steps = {"notebooks and report": report}
        for name, step in (steps if profile == "shipped" else {"training": run} | steps).items():
            print(f"\n== {profile}: {name}", flush=True)
            if _attempt(step, argparse.Namespace(**vars(chosen) | {"profile": profile})):
                failed.append(f"{profile}: {name}")
    return _list_failed(failed)


def plan(chosen: argparse.Namespace) -> int:
    """Say what a profile lacks: runs, operations, memory, time."""
    from .sweep import cost, train_missing

    device, todo = train_missing.resolve_device(chosen.device), []
    workers = chosen.workers if device == "cpu" else 1
    for measure, cells in _jobs(chosen).items():
        kind = train_missing.kind_of(measure)
        left = train_missing.missing(cells, store.load_statuses(map(kind.key, cells)), kind)
        done = f"{len(cells) - len(left)} of {len(cells)} runs {'repeated' if measure else 'done'}"
        print(f"{measure or f'profile {chosen.profile}'}: {done}, {len(left)} missing")
        todo += left
    if todo:
        largest = max(todo, key=lambda cell: cell.parameters)
        memory = f"{cost.memory_bytes(largest) / 2**30:.2f} GiB (width {largest.width}, depth {largest.depth})"
        print(f"operations: {sum(cell.flops for cell in todo):.2e}")
        print(f"memory of the largest: {memory}")
        shapes = len({(cell.model, cell.head, cell.width, cell.depth) for cell in todo})
        print(f"measuring how fast {device} trains each shape of network ({shapes}) ...", file=sys.stderr, flush=True)
        print(f"time on {device} with {workers} worker(s): {_duration(cost.estimate_seconds(todo, device, workers))}")
    return 0


def run(chosen: argparse.Namespace) -> int:
    """Train what a profile lacks, cheapest first; stop it at any time, and the same command resumes."""
    from .ledger.rows import curve_name
    from .sweep import dask, train_missing

    if chosen.profile == "shipped":
        raise InputError("profile is 'shipped', which trains nothing; run smoke, laptop or paper")
    if chosen.dry_run:
        return plan(chosen)
    jobs, failed = _jobs(chosen), False
    if not jobs:
        print("nothing to train")
        return 0
    about = f"claim {chosen.claim}" if chosen.claim else f"profile {chosen.profile}"
    about += f", notebooks {' '.join(chosen.only)}" if chosen.only else ""
    options, began = contextlib.nullcontext({"device": chosen.device, "workers": chosen.workers}), time.monotonic()
    with dask.dask(chosen.dask, chosen.device) if chosen.dask else options as options:
        for measure, cells in jobs.items():
            options["minutes"] = chosen.minutes and max(1e-9, chosen.minutes - (time.monotonic() - began) / 60)
            train = functools.partial(train_missing.further, name=measure) if measure else train_missing.run
            rows = train(cells, **options)
            done = f"{len(rows) - (rows['status'] == 'failed').sum()} of {len(cells)} runs"
            left = len(rows.attrs["missing"])  # without those that failed
            print(f"time is up, {left} left; " if chosen.minutes and left else "", end="")
            print(f"{measure}: {done} repeated" if measure else f"{about}: {done} done")
            for row in rows[rows["status"] != "ok"].itertuples():
                place = f"depth {row.depth}, width {row.width}, seed {row.seed}"
                print(f"{row.status}: {curve_name(row.init, row.power)}, {place}: {row.reason}")
            failed |= (rows["status"] == "failed").any()
    return int(failed)


def status(chosen: argparse.Namespace) -> int:
    """Say how many runs are done, diverged, failed, running and missing, figure by figure, each run once."""
    from .report.progress import count_runs

    keys = [cell.key for cell in _jobs(chosen).get(None, ())]
    statuses = store.load_statuses(keys, local=chosen.profile != "shipped")
    begun = locks.running([key for key in keys if statuses.get(key, "failed") == "failed"])
    statuses |= dict.fromkeys(begun, "running")
    names = [name for number in chosen.only for name in NOTEBOOKS[number]] if chosen.only else ["all"]
    counts = count_runs(chosen.profile, statuses, None if "all" in names else names, **_choices(chosen))
    print(counts.to_string(index=False))
    return 0


def report(chosen: argparse.Namespace) -> int:
    """Run the notebooks of a profile, and write its figures, tables, claims and HTML report."""
    from .report import pages

    failed = notebooks.execute(chosen.profile, only=chosen.only, parameters=chosen.parameters)
    own = {"seeds", "widths", "depths"} & dict(chosen.parameters).keys()  # as plots.folder says
    where = f"{chosen.profile}-own" if own else chosen.profile
    print(f"report: {pages.write_html(chosen.profile, failed, where=where)}")
    return _list_failed(failed)


def ship(chosen: argparse.Namespace) -> int:
    """Merge rows into results/shipped.jsonl, and write the outputs of the committed notebooks."""
    from .report.ship import ship_notebooks, ship_rows

    new, notes = ship_rows(chosen.files)
    print(f"{new} new rows in {store.SHIPPED}", *(f"note: {note}" for note in notes), sep="\n")
    return _list_failed(ship_notebooks())


def test(chosen: argparse.Namespace) -> int:
    """Check the code with ruff, then run the tests, one process per core; all further words are for pytest."""
    stopped, failed = [], []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(130))  # Ctrl-C reaches pytest too, which ends by itself
    for words in (["ruff", "check", "."], ["ruff", "format", "--check", "."], [*PYTEST, *chosen.words]):
        if not stopped and (status := subprocess.call([sys.executable, "-m", *words], cwd=ROOT)):
            failed.append(f"{words[0]} (exit status {status})")
    return stopped[0] if stopped else _list_failed(failed)


def _choices(chosen: argparse.Namespace) -> dict:
    """Seeds, widths and depths in place of the profile's: what is drawn with -p is what is trained."""
    return {name: dict(chosen.parameters).get(name, getattr(chosen, name)) for name in ("seeds", "widths", "depths")}


def _jobs(chosen: argparse.Namespace) -> dict[str | None, list[Cell]]:
    """The runs to train, and by the name of a further measure those that are repeated for it."""
    choices = _choices(chosen)
    if chosen.claim:
        return {None: _cells_of_claim(chosen, choices)}
    names = [name for number in chosen.only for name in NOTEBOOKS[number]] if chosen.only else ["all"]
    jobs: dict[str | None, dict[Cell, None]] = {None: {}}
    for name in [*names, *(REPEATED if "all" in names else ())]:
        cells = jobs.setdefault(name if name in REPEATED else None, {})
        cells |= dict.fromkeys(named_cells(name, chosen.profile, **choices))
    return {measure: list(cells) for measure, cells in jobs.items() if cells}


def _cells_of_claim(chosen: argparse.Namespace, choices: dict) -> list[Cell]:
    from .ledger import verdicts

    if chosen.seeds and len(chosen.seeds) == 1:
        choices["seeds"] = range(check_number("seeds", chosen.seeds[0], low=1, high=1000, integer=True))
    cells = verdicts.cells_of(chosen.claim, chosen.profile, **choices)
    if not cells:
        raise InputError(
            f"claim is {chosen.claim!r}, which no run of profile {chosen.profile} decides; see the ledger"
        )
    return cells


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


# ---------------------------------------------------------------------------------------------- words


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def two_digits(number: str) -> str:
    """The number of a notebook as its file has it: 2 is 02."""
    return number.zfill(2) if number.isdecimal() else number


SEVERAL = {"action": "append", "default": [], "metavar": "NN"}
ONLY = SEVERAL | {"type": two_digits, "help": "only this notebook and what it draws, by its number; may be repeated"}
NUMBERS = {"type": int, "nargs": "+", "metavar": "N", "help": "in place of the profile's"}
OPTIONS = {
    "profiles": {"nargs": "*", "metavar": "PROFILE", "help": ", ".join(PROFILES)},
    "profile": {"help": ", ".join(PROFILES)},
    "files": {"nargs": "*", "type": Path, "help": "row files of other machines (default: the rows of this one)"},
    "words": {"nargs": "*"},
    "--only": ONLY,
    "--claim": {"type": str.upper, "help": "only what this claim of the ledger needs; --seeds N is then how many"},
    "-p": SEVERAL | {"dest": "parameters", "metavar": "NAME=VALUE", "help": "a notebook parameter; may be repeated"},
    "--seeds": NUMBERS, "--widths": NUMBERS, "--depths": NUMBERS,
    "--device": {"default": "auto", "help": "where to train: auto, cpu, cuda, cuda:1, ..."},
    "--workers": {"type": int, "default": cores(), "metavar": "N", "help": "CPU processes (default: one per core)"},
    "--minutes": {"type": float, "metavar": "N", "help": "stop training after N minutes"},
    "--dask": {"metavar": "ADDRESS", "help": "train on the Dask cluster whose scheduler listens there"},
    "--dry-run": {"action": "store_true", "help": "only say what would be trained, as plan does"},
    "--check": {"action": "store_true", "help": "only check these words, and run nothing"},
}  # fmt: skip
GRID, MACHINE = ("--seeds", "--widths", "--depths"), ("--device", "--workers")
COMMANDS = {
    reproduce: ("profiles", "--only", "-p", *MACHINE, "--dask", "--minutes", "--check"),
    plan: ("profile", "--claim", "--only", *GRID, *MACHINE),
    run: ("profile", "--claim", "--only", *GRID, *MACHINE, "--dask", "--minutes", "--dry-run"),
    status: ("profile", "--only", *GRID),
    report: ("profile", "--only", "-p", "--check"),
    ship: ("files",),
    test: ("words",),
}
PROFILES_IN_WORDS = """
profiles (without one: smoke, then shipped once rows are shipped):
  smoke     scikit-learn's digits, no download: about three minutes on two cores
  laptop    MNIST: one night on two cores
  paper     MNIST on the paper's grid of widths, to 16384: for a GPU box
  shipped   draws the rows in results/shipped.jsonl and trains nothing

Stop it at any time: the same command resumes. The exit status is 0 if all went well, 1 if something failed, 2 if the
command was not understood, 130 or 143 if it was stopped. ./run_all.sh is this command in an environment that it makes
if need be; ./run_all.sh test checks the code.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m robustkit", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    nothing = {"profile": None, "profiles": (), "only": (), "parameters": (), "claim": None, "minutes": None}
    nothing |= {"seeds": None, "widths": None, "depths": None, "workers": 1, "dry_run": False, "check": False}
    for function, names in COMMANDS.items():
        how = {"epilog": PROFILES_IN_WORDS, "formatter_class": argparse.RawDescriptionHelpFormatter}
        how = {reproduce: how, test: {"prefix_chars": "\0", "add_help": False}}.get(
            function, {}
        )  # all words: pytest's
        about = function.__doc__.partition("\n")[0]
        command = commands.add_parser(function.__name__, help=about, description=about, **how)
        command.set_defaults(function=function, **nothing)
        for name in names:
            command.add_argument(name, **OPTIONS[name])
    return parser


if __name__ == "__main__":
    sys.exit(main())
