"""The ledger: what the paper says, as statements that rows can decide, and the verdict they give.

Criteria were fixed after a small pilot and before the shipped runs, but for the rules that PREAMBLE names.
Verdicts are computed, never typed.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace

import pandas

from ..cell import Cell
from ..checks import check_choice
from ..files import figures_folder, write_atomically
from ..profiles import READINGS, named_cells, twin_cells
from . import proxy_schedule
from .claims import EMPIRICAL, PREAMBLE, THEORETICAL, Claim
from .criteria import Part
from .rows import curve_name, curve_of, reading_of, reading_rank, usable

COLUMNS = ("id", "source", "claim", "quote", "hypotheses", "grid", "criterion", "verdict", "readings", "finding")
COLUMNS += ("evidence", "n", "detectable", "figure", "readings_detail", "readings_notes", "authors_response")
DIGITS = "(digits: pipeline check only)"
VERDICTS = ("reproduced", "partly", "not reproduced", "inconclusive", "outside hypotheses", "measured", "missing")
HEADLINES = ("E01", "E03", "E05", "E06", "E07", "E08", "E09", "E10", "E15", "T12")
_ALL = {claim.id: claim for claim in (*EMPIRICAL, *THEORETICAL)}
CLAIMS = tuple(_ALL[name] for name in dict.fromkeys((*HEADLINES, *sorted(_ALL))))


def cells_of(claim: str, profile: str, **choices) -> list[Cell]:
    """The trainings of a profile that decide a claim; choices as in `grid`. Empty if it needs none."""
    check_choice("claim", claim, _ALL)
    cells = {}
    for name in _ALL[claim].grids:
        if name not in READINGS or profile != "paper":
            cells |= dict.fromkeys(named_cells(name, profile, **choices))
    curves = _ALL[claim].curves
    rests = [
        cell
        for cell in cells
        for i, p, depths in curves
        if (cell.init, cell.power) == (i, p) and cell.depth in depths
    ]
    return sorted(rests if curves else cells, key=lambda cell: (cell.flops, cell.seed))


def _verdict(parts: list[Part], either: bool = False) -> str:
    """All yes: reproduced. Any yes beside others: partly. Else a no decides; then what is undecided; then missing.

    Of rival versions (`either`), a no to one leaves the other open: not reproduced needs a no to each. Parts outside
    the hypotheses decide only if there are no others, and parts that ask for no verdict give none.
    """
    answers = {part.answer for part in parts}
    if answers == {"none"}:
        return "measured"
    if "outside" in answers and not answers & {"yes", "partly", "no", "inconclusive"}:
        return "outside hypotheses"
    answers -= {"outside", "none"}
    if answers == {"yes"}:
        return "reproduced"
    order = {"yes": "partly", "partly": "partly", "no": "not reproduced", "inconclusive": "inconclusive"}
    if either and answers != {"no"}:
        order.pop("no")
    return next((verdict for answer, verdict in order.items() if answer in answers), "missing")


def _judge(claim: Claim, rows: pandas.DataFrame, whole: bool = True) -> list[Part]:
    """Parts of one reading; `whole` names the depths it lacks, as the main reading must not."""
    parts = claim.judge(rows) if len(rows) or not claim.curves else []
    for init, power, depths in claim.curves if whole else ():
        absent = [depth for depth in depths if curve_of(rows, init, power, depth).empty]
        parts = [*parts, *(Part("missing", f"{curve_name(init, power, depth)}: no rows") for depth in absent)]
    return parts


def _left_out(rows: pandas.DataFrame) -> str:
    words = []
    for row in rows[~(usable(rows, "stability") & usable(rows, "kappa"))].itertuples():
        power = None if row.power is None or math.isnan(row.power) else row.power
        why = row.status if row.status != "ok" else "a measure is zero or not finite"
        words.append(f"{curve_name(row.init, power, row.depth)}, width {row.width}, seed {row.seed} ({why})")
    more = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return f"left out of {len(rows)} trainings: " + "; ".join(words[:8]) + more if words else ""


def _company(rows: pandas.DataFrame) -> str:
    """What must stand beside P: training loss, accuracy and seeds."""
    good = rows[usable(rows, "stability")]
    if good.empty:
        return ""
    seeds = good.groupby(["init", "power", "depth", "width"], dropna=False).size()
    ranges = {"training loss": good["train_loss"], "test accuracy": good["test_accuracy"], "seeds a cell": seeds}
    return ", ".join(f"{name} {values.min():.3g} to {values.max():.3g}" for name, values in ranges.items())


def _further(claim: Claim, further: dict[str, pandas.DataFrame]) -> list[Part]:
    name, judge = claim.further or ("", None)
    if not name:
        return []
    again = further.get(name)
    if again is None or again.empty:
        return [Part("missing", f"{name}: not measured here (robustkit.further trains again for it)")]
    parts = judge(again)
    return [*parts[:-1], replace(parts[-1], text=f"{parts[-1].text}; {_count(again)} trainings again for {name}")]


def _count(again: pandas.DataFrame) -> int:
    return int((again["status"] == "ok").sum())


def _at_start(rows: pandas.DataFrame) -> str:
    """The curves with a width whose networks have not left their start: the mean loss fell by less than 2 %."""
    if "loss_over_time" not in rows:
        return ""
    good = rows[usable(rows, "stability") & rows["loss_over_time"].map(lambda v: isinstance(v, list) and len(v) > 1)]
    kept = good["loss_over_time"].map(lambda v: v[-1] / v[0] if v[0] else 1.0)
    names = []
    by = ["model", "init", "power", "depth"]
    for (_, init, power, depth), curve in good.assign(kept=kept).groupby(by, dropna=False):
        still = curve.groupby("width")["kept"].mean()
        if (still > 0.98).any():
            widths = ", ".join(f"{m}" for m in still.index[still > 0.98])
            names.append(f"{curve_name(init, None if pandas.isna(power) else power, depth)} at width {widths}")
    return f"not left the start: {'; '.join(names)}" if names else ""


def _in_part(claim: Claim, rows: pandas.DataFrame) -> str:
    """How many of the curves a claim rests on a reading has, if not all."""
    curves = [(init, power, depth) for init, power, depths in claim.curves for depth in depths]
    there = sum(not curve_of(rows, *curve).empty for curve in curves)
    return f"{there} of {len(curves)} curves" if there < len(curves) else ""


def _moved(rows: pandas.DataFrame, moved: dict[tuple, str]) -> str:
    """The curves in which the proxy schedule moves P by more than the seeds' spread."""
    curves = rows[["reading", "init", "power", "depth"]].drop_duplicates().itertuples(index=False)
    names = [(reading, curve_name(i, None if pandas.isna(p) else p, depth)) for reading, i, p, depth in curves]
    return f"moved by the proxy: {', '.join(found)}" if (found := [moved[n] for n in names if n in moved]) else ""


def _note(claim: Claim, rows: pandas.DataFrame, last: str, moved: dict) -> str:
    """Why a reading is not counted, if it is not; `last` is the last word of its name."""
    at_start = "" if claim.early else _at_start(rows)
    if last.startswith("c="):  # rows that stand in for c = 2
        at_start = at_start.replace("(c = 2)", f"({last.replace('=', ' = ')})")
    return "; ".join(filter(None, (_in_part(claim, rows), at_start, _moved(rows, moved))))


def _finding(parts: list[Part]) -> str:
    """The first and the last thing seen, without what stands in brackets behind them."""
    texts = [re.sub(r" \((?!c = )[^()]*\)", "", part.text) for part in parts if part.answer != "none"]
    seen = [text.split("; ")[0] for text in texts]
    return "; ".join(seen if len(seen) < 3 else [seen[0], "...", seen[-1]])


def _readings(claim: Claim, rows: pandas.DataFrame) -> dict[tuple, pandas.DataFrame]:
    """The rows of each reading, the one to be judged first; another c in place of c = 2 is a reading of its own."""
    curves = [curve_of(rows, init, power, depth) for init, power, depths in claim.curves for depth in depths]
    used = pandas.concat(curves) if curves else rows.iloc[:0]
    used = used[used["model"] == claim.models[0]]
    found = dict(sorted(used.groupby("reading", sort=False), key=lambda item: reading_rank(item, claim.wanted)))
    for reading, same in rows.groupby("reading", sort=False) if claim.any_power else ():
        for power in sorted(set(same["power"].dropna()) - {2.0}):
            others = same[(same["init"] != "power") | (same["power"] == power)]
            others = others.assign(power=others["power"].where(others["power"].isna(), 2.0))
            curves = [curve_of(others, init, two, depth) for init, two, depths in claim.curves for depth in depths]
            found[*reading, f"c={power:g}"] = pandas.concat(curves)
    for reading, same in found.items() if len(claim.models) > 1 else ():  # another model, all else alike
        others = rows[(rows["model"] != claim.models[0]) & (rows["reading"] == reading[:4])]
        curves = [curve_of(others, init, power, depth) for init, power, depths in claim.curves for depth in depths]
        found[reading] = pandas.concat([same, *curves])
    return found


def _grid(rows: pandas.DataFrame) -> str:
    if rows.empty:
        return ""
    seeds = rows.groupby(["init", "power", "depth", "width"], dropna=False)["seed"].nunique()
    ends = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    lists = [", ".join(map(str, sorted(rows[name].unique()))) for name in ("width", "depth")]
    return f"widths {lists[0]}; depths {lists[1]}; seeds a cell {ends}"


def _entry(claim: Claim, rows: pandas.DataFrame, only_digits: bool, further: dict, gaps: set, moved: dict) -> dict:
    rows = rows[rows["model"].isin(claim.models)]
    rows = rows[claim.where(rows)] if len(rows) else rows
    readings = _readings(claim, rows)
    reading, judged = next(iter(readings.items()), ((), rows.iloc[:0]))
    parts = [*_judge(claim, judged), *_further(claim, further)]
    judged = judged[judged["model"] == claim.models[0]]  # what stands beside is not counted
    notes = {r: _note(claim, found, r[-1], moved) for r, found in readings.items()}
    evidence = [f"reading: {', '.join(reading)}"] if reading else []
    if "flow10" in reading:
        evidence.append("the proxy schedule flow10: a tenth of the steps at ten times the rate")
    evidence += [part.text for part in parts]
    evidence += [text for text in (_company(judged), _left_out(judged), notes.get(reading)) if text]
    profile = "laptop" if cells_of(claim.id, "laptop") else "paper"
    lacking = [cell for cell in cells_of(claim.id, profile) if cell.key in gaps]
    if lacking:
        evidence.append(f"{len(lacking)} of the trainings in its grid are missing")
    if (lacking or any(part.answer == "missing" for part in parts)) and claim.curves:
        evidence.append(f"`python -m robustkit run {profile} --claim {claim.id}` trains what is missing")
    verdicts = {
        r: _verdict(parts if r == reading else _judge(claim, found, whole=False), claim.either)
        for r, found in readings.items()
    }
    counts = Counter(sorted((v for r, v in verdicts.items() if not notes[r]), key=VERDICTS.index))
    holds = f"{counts.total()} counted: {', '.join(f'{n} {word}' for word, n in counts.items())}" if counts else ""
    if aside := sum(bool(note) for note in notes.values()):
        holds += f"{'; ' if holds else ''}{aside} not counted"
    if len(readings) > 1 and only_digits:
        evidence.append("other readings there: " + "; ".join(", ".join(other) for other in list(readings)[1:]))
    elif len(readings) > 1:
        for other in list(readings)[1:]:
            note = f" (not counted: {notes[other]})" if notes[other] else ""
            own = readings[other][readings[other]["model"] == claim.models[0]]
            evidence.append(f"under {', '.join(other)}: {verdicts[other]}{note}; {_company(own)}")
    seen = [part.mde for part in parts if math.isfinite(part.mde)]
    names = {r: ", ".join(r) for r in readings}
    return {
        **{name: getattr(claim, name) for name in ("id", "source", "claim", "quote", "hypotheses", "criterion")},
        "grid": _grid(judged),
        "finding": _finding(parts),
        "figure": claim.figure,
        "verdict": DIGITS if only_digits else verdicts.get(reading, _verdict(parts, claim.either)),
        "readings": "" if only_digits else holds,
        "evidence": "\n".join(evidence).replace("inconclusive", "undecided") if only_digits else "\n".join(evidence),
        "n": int((usable(judged, "stability")).sum()) if len(judged) else 0,
        "detectable": f"a ratio of {max(seen):.3g}" if seen else "",
        "readings_detail": "" if only_digits else json.dumps({names[r]: verdict for r, verdict in verdicts.items()}),
        "readings_notes": "" if only_digits else json.dumps({names[r]: note for r, note in notes.items() if note}),
        "authors_response": "",
    }


def ledger(rows: pandas.DataFrame, *, only=None, further: dict | None = None) -> pandas.DataFrame:
    """One row a claim, with the verdict that these rows give; columns as in COLUMNS.

    A claim reads the rows of its own models, mostly of fully connected nets, and pools only rows of one reading
    (dataset, scaling, loss, schedule and every other choice): first the one that the claim asks for (mostly MNIST raw
    under cross-entropy and the full schedule), where it is there, else the nearest. Digits rows are read only where
    there are no others, and then no verdict is given.
    A reading that lacks a curve of the claim, holds networks that have not left their start, or is of the proxy
    schedule where that moves P (see proxy.py), gets its verdict but is not counted in "readings"; readings_notes says
    why. The trainings that check the proxy are no reading of their own.
    rows: as from robustkit.load() or robustkit.collect. only: ids of claims. further: {measure: rows as from
    robustkit.load_further}. Raises InputError on an unknown id.
    """
    for name in only or ():
        check_choice("claim", name, _ALL)
    gaps = {cell.key for cell in rows.attrs.get("missing", ())}
    if rows.empty:
        rows = pandas.DataFrame(columns=[*Cell.__dataclass_fields__, "status", "schedule", "stability", "kappa"])
    only_digits = bool(len(rows)) and set(rows["dataset"]) == {"digits"}
    # Theorem 2 asks for m >> d: its small runs are on digits, d = 64, one output.
    rows = rows[only_digits | (rows["dataset"] != "digits") | (rows["target"] == "parity")]
    rows = rows.assign(reading=[reading_of(row) for row in rows.to_dict("records")])
    rows.attrs = {}  # pandas would copy them at each step
    moved, twins = proxy_schedule.moved(rows), {cell.key for cell in twin_cells("laptop")}
    rows = rows[~rows["key"].isin(twins)] if "key" in rows else rows
    chosen = [claim for claim in CLAIMS if only is None or claim.id in only]
    table = [_entry(claim, rows, only_digits, further or {}, gaps, moved) for claim in chosen]
    return pandas.DataFrame(table, columns=list(COLUMNS))


def to_markdown(table: pandas.DataFrame) -> str:
    """The ledger as a page: a table of verdicts, then each claim in the paper's words with criterion and evidence."""
    lines = ["# What the paper says, and what these runs give", ""]
    lines += [PREAMBLE]
    lines += ["", "| id | claim | verdict | readings | n | detectable |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.id} | {r.claim} | {r.verdict} | {r.readings} | {r.n} | {r.detectable} |" for r in table.itertuples()
    ]
    for row in table.itertuples():
        lines += ["", f"## {row.id}: {row.claim}", "", f"> {row.quote}", ">", f"> ({row.source})", ""]
        lines += [f"- **Verdict**: {row.verdict} (n = {row.n} trainings)", f"- **Criterion**: {row.criterion}"]
        lines += [f"- **Hypotheses**: {row.hypotheses}"]
        lines += [f"- **Grid**: {row.grid}"] if row.grid else []
        lines += [f"- **Figure**: {row.figure}"] if row.figure else []
        lines += [f"- **Detectable**: {row.detectable}"] if row.detectable else []
        lines += ["- **Evidence**:", *(f"  - {text}" for text in row.evidence.split("\n"))]
        lines += [f"- **Authors' response**: {row.authors_response or '(none yet)'}"]
    return "\n".join(lines) + "\n"


def save(table: pandas.DataFrame, profile: str) -> pandas.DataFrame:
    """Write the ledger as figures/<profile>/claims.md and claims.csv, and return it."""
    write_atomically(figures_folder(profile) / "claims.md", to_markdown(table))
    write_atomically(figures_folder(profile) / "claims.csv", table.to_csv(index=False))
    return table
