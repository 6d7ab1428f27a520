"""Words that fuzzing puts on command lines, into notebook parameters and into a cell's fields."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import signal
import warnings
from pathlib import Path

import numpy as np
import torch

import robustkit.__main__ as command_line
from robustkit.cell import Cell
from robustkit.checks import InputError
from robustkit.profiles import PROFILES
from robustkit.report import notebooks as report
from robustkit.sweep import cost, store

from .files import Feed, attribute, environment, pick, refusal

NUMBERS = [
    *(
        "16",
        "2",
        "4",
        "1",
        "0",
        "-1",
        "2.5",
        "1e3",
        "nan",
        "inf",
        "",
        " 6",
        "0x10",
        "1_6",
        "\uff19",
        "\0",
        "\xe9",
        "---",
    ),
    *("9" * 30, "9" * 400, "widths", "10000", "1000000000", "1000000001"),
]
TEXTS = [
    *(
        "[16, 64]",
        "[0, 1]",
        "None",
        "[]",
        "[16, 16]",
        "[[0]]",
        "[0.5]",
        "['a']",
        "{1: 2}",
        "b'x'",
        "1e999",
        "cpu",
        "'",
    ),
    *("{[]: 1}", "(" * 300, "-" * 9000 + "1", "9" * 5000, "'\\d'", "__import__('os').system('true')", "\0"),
]
WORDS = [
    *("smok", "paper ", "", "Smoke", "--", "-", "E06", "T01", "cuda:99", "meta", "../..", "-p", "\ud800", "x" * 3000),
]
PARAMETERS = [
    *("width", "depth", "seed", "seeds", "widths", "depths", "device", "widht", "__class__", "x;import os", ""),
]
STRANGE = [
    *(None, True, 0, -1, 1, 2, 8, 0.5, 2.5, 1e-320, 1e308, math.nan, -math.inf, 10**400, 3 + 4j, b"he", [], {}),
    *("", "he", "digits", "\0", "\0.npz", "\ud800.npz", "a" * 5000 + ".npz", "~nobody-here/a.npz", [0.5], (0.5, 1)),
    *(np.array(["he"]), np.array([1, 2]), np.int8(3), np.float32(0.1), np.bool_(True), np.datetime64("nat")),
    *(torch.tensor(3), object()),
]


def choices(draw) -> tuple[list[str], bool]:
    """Options --seeds, --widths and --depths with numbers, and whether each of them is one that is allowed."""
    arguments, allowed = [], True
    for name, low, high in (("seeds", 0, math.inf), ("widths", 1, 10**9), ("depths", 2, 10**4)):
        if draw.integers(2):
            few = ["0" if name == "seeds" else "16", "2", "4"]
            values = [pick(draw, few if draw.integers(4) else NUMBERS) for _ in range(draw.integers(1, 4))]
            arguments += [f"--{name}", *values]
            with refusal(ValueError) as refused:
                numbers = [int(value) for value in values]
                good = [low <= number <= high and number < 1e300 for number in numbers]
                allowed &= all(good) and len(set(numbers)) == len(numbers)
            allowed &= not refused
    return arguments, allowed


def command_lines(folder: Path) -> Feed:
    """plan, status and report --check with real options, some of them bent; nothing is trained or run."""
    parameters_of = functools.cache(report.parameters_of)
    changes = [(store, "SHIPPED", folder / "none"), (report, "parameters_of", parameters_of)]
    changes += [(report, "execute", None), (cost, "_start_seconds", lambda: 1.0)]
    changes += [(cost, "_speeds", lambda *_: (1e-6, 1e-6, 1e-6))]

    def quiet(arguments: list[str]) -> tuple[int, str]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(environment("ROBUSTKIT_RESULTS", folder / "results"))
            for thing, name, value in changes:
                stack.enter_context(attribute(thing, name, value))
            stack.enter_context(warnings.catch_warnings())
            said = [stack.enter_context(redirect(io.StringIO()))
                    for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr)]  # fmt: skip
            handler = signal.getsignal(signal.SIGTERM)
            try:
                return command_line.main(arguments), said[1].getvalue()
            except SystemExit as leaving:
                return leaving.code, said[1].getvalue()
            finally:
                signal.signal(signal.SIGTERM, handler)

    def feed(draw):
        command = pick(draw, ["plan", "status", "report"])
        profile = pick(draw, ["smoke"] * 8 + [*PROFILES, *WORDS])
        options, allowed = ([], True) if command == "report" else choices(draw)
        bent = False
        if command == "report" and (bent := draw.integers(3) > 0):
            for _ in range(draw.integers(1, 3)):
                text = f"{pick(draw, PARAMETERS)}={pick(draw, NUMBERS + TEXTS)}"
                options += pick(draw, [["-p", text], ["--only", pick(draw, ["01", "1", "99", ""])]])
        if command == "plan" and (bent := draw.integers(3) == 0):
            pool = {"--workers": NUMBERS, "--device": ["cpu", "gpu", *WORDS], "--claim": ["E02", "E06", *WORDS]}
            option = pick(draw, list(pool))
            options += [option, pick(draw, pool[option])]
        if draw.integers(10) == 0:
            bent = True
            options.insert(int(draw.integers(len(options) + 1)), pick(draw, WORDS + NUMBERS))
        end = ["--check"] if command == "report" else []
        status, said = quiet([command, profile, *options, *end])
        assert status in (0, 2), f"exit status {status}: {said}"
        assert bent or (status == 0) == (allowed and profile in PROFILES), f"{options} {status} {said}"
        assert status == 0 or (said and "Traceback" not in said)
        assert not (folder / "results").exists()
        return "refused" if status else "equal"

    return feed


def notebook_parameters(_: Path) -> Feed:
    """Values of any kind under names of any kind."""
    paths = report.notebooks()
    parameters_of = functools.cache(report.parameters_of)
    defaults = {name: value for path in paths for name, value in parameters_of(path).items()}
    values = [0, 16, -1, 2.5, math.nan, True, None, [], [16], [16, 16], (16,), {}, b"x", 10**400, [[]], ["a"], *TEXTS]

    def feed(draw):
        given = {pick(draw, list(defaults) + PARAMETERS): pick(draw, values) for _ in range(draw.integers(1, 4))}
        with attribute(report, "parameters_of", parameters_of), refusal(InputError) as refused:
            found = report.check_parameters(paths, given)
            for name, value in given.items():
                kinds = (list, type(None)) if defaults[name] is None else (type(defaults[name]),)
                assert type(value) in kinds
                assert any(own.get(name, found) is value for own in found.values())
        assert not refused or any(name in refused[0] for name in given)
        return "refused" if refused else "equal"

    return feed


def cells(_: Path) -> Feed:
    """Fields of a cell with values of any kind: a cell that JSON returns unchanged, or a sentence."""
    names = list(Cell.__dataclass_fields__)

    def feed(draw):
        fields = {pick(draw, names): pick(draw, STRANGE) for _ in range(draw.integers(1, 4))}
        with refusal(InputError) as refused:
            made = Cell(**{"width": 16, "depth": 8} | fields)
            again = Cell(**json.loads(json.dumps({name: getattr(made, name) for name in names}, allow_nan=False)))
            assert again == made and again.key == made.key and math.isfinite(made.flops)
        return "refused" if refused else "equal"

    return feed
