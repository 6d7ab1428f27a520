"""How far a profile is, figure by figure."""

from __future__ import annotations

from collections import Counter

import pandas

from ..profiles import named_cells, profile_names

STATUSES = {"ok": "done"} | {name: name for name in ("diverged", "failed", "running", "missing")}


def count_runs(profile: str, statuses: dict[str, str], names=None, **choices) -> pandas.DataFrame:
    """Runs that are done, diverged, failed, running and missing: a row per figure, reading and control, then the sum.

    A run that several share is counted at the first of them, which "shared" names at the others.
    statuses: of each key that has one. names: these figures alone. choices: seeds, widths, depths in place of the
    profile's own (see `named_cells`).
    """
    first, lines = {}, []
    for name in profile_names(profile) if names is None else names:
        cells = named_cells(name, profile, **choices)
        shared = Counter(first[cell] for cell in cells if cell in first)
        own = Counter(STATUSES[statuses.get(cell.key, "missing")] for cell in cells if cell not in first)
        first |= {cell: first.get(cell, name) for cell in cells}
        lines.append({"figure": name} | {column: own[column] for column in STATUSES.values()})
        lines[-1]["shared"] = ", ".join(f"{n} with {other}" for other, n in shared.items())
    table = pandas.DataFrame(lines, columns=["figure", *STATUSES.values(), "shared"])
    table.loc[len(table)] = {"figure": "all", **table[list(STATUSES.values())].sum(), "shared": ""}
    return table
