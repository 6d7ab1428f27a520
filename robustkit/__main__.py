"""python -m robustkit plan | run | status | ship | report"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import signal
import sys
import warnings
from concurrent.futures import BrokenExecutor
from pathlib import Path

from .checks import InputError, check_choice, check_number
from .ledger import verdicts
from .profiles import FIGURES, NOTEBOOKS, PROFILES, cheapest_first, grid, named_cells, profile_cells
from .report import notebooks as report
from .report import ship as ship_module
from .sweep import cost, locks, store, train_missing
from .sweep import dask as cluster


def main(arguments=None) -> int:
    """Run one command; the exit status is 0, 1 if something failed, 2 on bad input, 130 or 143 when stopped."""
    parser = argparse.ArgumentParser(prog="python -m robustkit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("plan", "say what a profile still needs: trainings, operations, memory, time"),
        ("run", "train what is missing, cheapest first; stop and start as you like"),
        ("status", "say what is there, figure by figure"),
        ("report", "run the notebooks and write figures, tables, claims and the HTML report"),
        ("ship", "merge rows into results/shipped.jsonl and write the committed notebook outputs"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == "ship":
            command.add_argument("files", nargs="*", type=Path, help="row files from other machines (default: local)")
            continue
        command.add_argument("profile", help=", ".join(PROFILES))
        if name in ("plan", "run"):
            command.add_argument(
                "--claim", help="only what this claim of the ledger needs; --seeds N is then a count"
            )
            command.add_argument(
                "--only", action="append", default=[], metavar="NN", help="only what this notebook draws"
            )
        if name == "report":
            command.add_argument("--only", action="append", default=[], metavar="NN", help="notebook number")
            command.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", dest="parameters")
            command.add_argument("--check", action="store_true", help="only check --only and -p, and run nothing")
        else:
            for option in ("seeds", "widths", "depths"):
                command.add_argument(f"--{option}", type=int, nargs="+", metavar="N")
        if name in ("plan", "run"):
            command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
            command.add_argument(
                "--workers", type=int, default=None, help="processes on the CPU (default: the cores)"
            )
        if name == "run":
            command.add_argument("--minutes", type=float, default=None, help="stop in time")
            command.add_argument(
                "--dry-run", action="store_true", help="only say what would be trained, as plan does"
            )
            command.add_argument("--dask", metavar="ADDRESS", help="train on the Dask cluster of this scheduler")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        if chosen.command != "ship":
            check_choice("profile", chosen.profile, PROFILES)
        return {"plan": plan, "run": run, "status": status, "report": write_report, "ship": ship}[chosen.command](
            chosen
        )
    except InputError as error:
        print(f"robustkit: {error}", file=sys.stderr)
        return 2
    except BrokenExecutor:
        print(
            "robustkit: a worker process died (killed, or out of memory); what is finished is saved", file=sys.stderr
        )
        return 1
    except (OSError, store.ConflictError) as error:
        print(f"robustkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is finished is saved, and the same command goes on from here", file=sys.stderr)
        return 130


def _terminate(*_):
    print("stopped; what is finished is saved, and the same command goes on from here", file=sys.stderr)
    raise SystemExit(143)


def _cells(chosen):
    choices = {"seeds": chosen.seeds, "widths": chosen.widths, "depths": chosen.depths}
    if not chosen.claim:
        for number in chosen.only:
            check_choice("--only", number, NOTEBOOKS)
        names = [name for number in chosen.only for name in NOTEBOOKS[number]] if chosen.only else ["all"]
        return cheapest_first(cell for name in names for cell in named_cells(name, chosen.profile, **choices))
    if chosen.seeds and len(chosen.seeds) == 1:
        choices["seeds"] = range(check_number("seeds", chosen.seeds[0], low=1, high=1000, integer=True))
    cells = verdicts.cells_of(chosen.claim, chosen.profile, **choices)
    if not cells:
        nothing = f"which no training of profile {chosen.profile} decides; see the ledger"
        raise InputError(f"claim is {chosen.claim!r}, {nothing}")
    return cells


def _workers(chosen) -> int:
    given = check_number("workers", chosen.workers, low=1, high=1000, integer=True, optional=True)
    return given or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def plan(chosen) -> int:
    """Say, before anything runs, what is done and missing, and what the rest costs."""
    cells, device, workers = _cells(chosen), train_missing.resolve_device(chosen.device), _workers(chosen)
    todo = train_missing.missing(cells, store.load_statuses())
    print(f"profile {chosen.profile}: {len(cells) - len(todo)} of {len(cells)} trainings done, {len(todo)} missing")
    if todo:
        largest = max(todo, key=lambda cell: cell.parameters)
        seconds = cost.estimate_seconds(todo, device, workers)
        print(f"operations: {sum(cell.flops for cell in todo):.2e}")
        print(f"memory of the largest: {cost.memory_bytes(largest) / 2**30:.2f} GiB (width {largest.width}, "
              f"depth {largest.depth})")  # fmt: skip
        print(f"time on {device} with {workers if device == 'cpu' else 1} worker(s): about {_duration(seconds)}")
    return 0


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def run(chosen) -> int:
    """Train what a profile lacks."""
    if chosen.profile == "shipped":
        raise InputError("profile is 'shipped', which trains nothing; run smoke, laptop or paper")
    if chosen.dry_run:
        return plan(chosen)
    cells = _cells(chosen)
    if not cells:
        print("nothing to train")
        return 0
    what = f"claim {chosen.claim}" if chosen.claim else f"profile {chosen.profile}"
    what += f", notebooks {' '.join(chosen.only)}" if chosen.only else ""
    options = {"device": chosen.device, "workers": _workers(chosen)}
    with cluster.dask(chosen.dask, chosen.device) if chosen.dask else contextlib.nullcontext(options) as options:
        rows = train_missing.run(cells, minutes=chosen.minutes, **options)
    bad = rows[rows["status"] != "ok"]
    left = train_missing.missing(cells, store.load_statuses())
    print(f"{what}: {len(cells) - len(left)} of {len(cells)} trainings done")
    for row in bad.itertuples():
        print(f"{row.status}: {row.init}, depth {row.depth}, width {row.width}, seed {row.seed}: {row.reason}")
    return 1 if (bad["status"] == "failed").any() else 0


def status(chosen) -> int:
    """Say what is done, diverged, failed, being trained by another process and missing, figure by figure."""
    statuses = store.load_statuses(local=chosen.profile != "shipped")
    choices = {"seeds": chosen.seeds, "widths": chosen.widths, "depths": chosen.depths}
    parts = {figure: grid(figure, chosen.profile, **choices) for figure in FIGURES}
    parts["all"] = profile_cells(chosen.profile, **choices)
    left = train_missing.missing(parts["all"], statuses)
    statuses |= dict.fromkeys(locks.running([cell.key for cell in left]), "running")
    print(f"{'figure':8}{'done':>8}{'diverged':>10}{'failed':>8}{'running':>9}{'missing':>9}")
    for name, cells in parts.items():
        found = [statuses.get(cell.key, "missing") for cell in cells]
        counts = [found.count(status) for status in ("ok", "diverged", "failed", "running", "missing")]
        print(f"{name:8}{counts[0]:8}{counts[1]:10}{counts[2]:8}{counts[3]:9}{counts[4]:9}")
    return 0


def write_report(chosen) -> int:
    """Run the notebooks and write the HTML report; list what failed."""
    parameters = {}
    for text in chosen.parameters:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"-p is {text!r}, but must be NAME=VALUE")
        if name == "profile":
            raise InputError(f"-p is {text!r}, but the profile is given by its name alone: report {value}")
        parameters[name] = _literal(value)
    if chosen.check:
        report.check_parameters(report.notebooks(chosen.only), parameters)
        return 0
    from .report import pages  # needs the notebook tools, which training does not

    failed = report.execute(chosen.profile, only=chosen.only, parameters=parameters)
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    print(f"report: {pages.write_html(chosen.profile, failed)}")
    return 1 if failed else 0


def _literal(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text


def ship(chosen) -> int:
    """Merge rows into results/shipped.jsonl, then write the committed notebook outputs."""
    new, notes = ship_module.ship_rows(chosen.files)
    print(f"{new} new rows in {store.SHIPPED}")
    for note in notes:
        print(f"note: {note}")
    failed = ship_module.ship_notebooks()
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
