"""How far a profile is, figure by figure."""

from __future__ import annotations

from collections import Counter

import pandas

from ..profiles import FIGURES, grid, profile_cells

STATUSES = {"ok": "done"} | {name: name for name in ("diverged", "failed", "running", "missing")}


def count_runs(profile: str, statuses: dict[str, str], **choices) -> pandas.DataFrame:
    """Runs that are done, diverged, failed, running and missing: a row per figure, the last one for "all".

    statuses: of each key that has one. choices: seeds, widths, depths in place of the profile's own (see `grid`).
    """
    parts = {figure: grid(figure, profile, **choices) for figure in FIGURES}
    parts["all"] = profile_cells(profile, **choices)
    counts = {name: Counter(statuses.get(cell.key, "missing") for cell in cells) for name, cells in parts.items()}
    return pandas.DataFrame(
        [{"figure": name} | {column: n[status] for status, column in STATUSES.items()} for name, n in counts.items()]
    )
