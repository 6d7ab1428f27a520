"""The ledger: the verdict that rows give on each statement of the paper, as a table and as a page.

Criteria were fixed after a small pilot and before the shipped runs, but for those that RULES names.
Verdicts are computed, never typed.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import pandas
from jinja2 import Template

from ..cell import Cell
from ..checks import check_choice
from ..files import figures_folder, write_atomically
from ..profiles import cheapest_first, named_cells, twin_cells
from . import proxy_schedule
from .claims import CLAIMS, LEAD, RULES, THEOREM_1_READING, Claim
from .criteria import Part
from .rows import MAIN_READING, after_epochs, curve_name, curve_of, reading_of, reading_rank, usable

LEDGER_COLUMNS = ("id", "source", "claim", "quote", "hypotheses", "grid", "criterion", "verdict", "parts", "readings")
LEDGER_COLUMNS += ("under_theorem1", "finding", "finding_under_theorem1", "evidence", "n", "detectable", "figure")
LEDGER_COLUMNS += ("readings_detail", "readings_notes", "authors_response")
DIGITS = "(digits: pipeline check only)"
ANSWERS = {"yes": "yes", "partly": "in part", "no": "no", "inconclusive": "open", "missing": "missing"}
ANSWERS["outside"] = "outside the hypotheses"
VERDICTS = ("reproduced", "partly", "not reproduced", "inconclusive", "outside hypotheses", "measured", "missing")
BY_ID = {claim.id: claim for claim in CLAIMS}
CURVE = ["init", "power", "depth"]
EARLY_EPOCHS = (2.5, 5)  # claims on width and depth are read at these times of the paper's schedule as well


def cells_of(claim: str, profile: str, **choices) -> list[Cell]:
    """The runs of a profile that decide a claim; choices as in `grid`. Empty if it needs none."""
    check_choice("claim", claim, BY_ID)
    wanted = BY_ID[claim]
    cells = [cell for name in wanted.grids for cell in named_cells(name, profile, **choices)]
    if wanted.curves:
        cells = [cell for cell in cells if (cell.init, cell.power, cell.depth) in wanted.single_curves]
    return cheapest_first(cells)


def verdict_of(parts: list[Part], either: bool = False) -> str:
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
    """Parts of one reading; `whole` names the curves it lacks, which the main reading must have."""
    parts = claim.judge(rows) if len(rows) or not claim.curves else []
    absent = [curve_name(*curve) for curve in claim.single_curves if whole and curve_of(rows, *curve).empty]
    return [*parts, *(Part("missing", f"{name}: no runs") for name in absent)]


def _further(claim: Claim, further: dict[str, pandas.DataFrame]) -> list[Part]:
    """Parts of the measure that runs were repeated for, if the claim has one."""
    if not claim.further:
        return []
    name, judge = claim.further
    again = further.get(name)
    if again is None or again.empty:
        return [Part("missing", f"{name}: not measured here (robustkit.training.remeasure repeats runs for it)")]
    *parts, last = judge(again)
    return [*parts, last.plus(f"; {(again['status'] == 'ok').sum()} runs repeated for {name}")]


def _rows_of(claim: Claim, rows: pandas.DataFrame) -> pandas.DataFrame:
    return pandas.concat([rows.iloc[:0], *(curve_of(rows, *curve) for curve in claim.single_curves)])


def _readings(claim: Claim, every: pandas.DataFrame) -> dict[tuple, pandas.DataFrame]:
    """The rows of each reading, the one to be judged first, then that under the hypotheses of Theorem 1.

    Another c in place of c = 2 is a reading of its own, and so is an early time of the paper's schedule.
    """
    rows = every[claim.where(every)] if len(every) else every
    used = _rows_of(claim, rows)
    used = used[used["model"] == claim.models[0]]
    readings = dict(sorted(used.groupby("reading", sort=False), key=lambda item: reading_rank(item, claim.wanted)))
    for reading, same in rows.groupby("reading", sort=False) if claim.any_power else ():
        for power in sorted(set(same["power"].dropna()) - {2.0}):
            others = same[(same["init"] != "power") | (same["power"] == power)]
            others = others.assign(power=others["power"].where(others["power"].isna(), 2.0))
            readings[*reading, f"c={power:g}"] = _rows_of(claim, others)
    for reading, same in readings.items() if len(claim.models) > 1 else ():  # another model, all else alike
        others = rows[(rows["model"] != claim.models[0]) & (rows["reading"] == reading[:4])]
        readings[reading] = pandas.concat([same, _rows_of(claim, others)])
    if claim.early_too and len(every):
        paper = every["reading"].isin([MAIN_READING, (*MAIN_READING[:3], "5 epochs at 0.001", "milestones=()")])
        for epochs in EARLY_EPOCHS:
            early = _rows_of(claim, after_epochs(every[paper], epochs))
            readings |= {(*MAIN_READING, f"after {epochs:g} epochs"): early} if len(early) else {}
    first = [reading for reading in list(readings)[:1] + [THEOREM_1_READING] if reading in readings]
    return {reading: readings[reading] for reading in dict.fromkeys([*first, *readings])}


def _unchecked(claim: Claim, rows: pandas.DataFrame, checked: dict) -> list[str]:
    """The curves of classifiers under another schedule than the paper's for which no run compared the two.

    A depth between two that were compared counts as compared. The recipe of the ResNets is a schedule of the paper.
    """
    paper = {"full", claim.wanted[3]} - {"flow10"}
    other = rows[~rows["schedule"].isin(paper) & rows["stop_loss"].isna() & (rows["target"] == "class")]
    names = []
    for reading, init, power, depth in other[["reading", *CURVE]].drop_duplicates().itertuples(index=False):
        power = None if pandas.isna(power) else power
        depths = [key[3] for key in checked if key[:3] == (reading, init, power)]
        if not (depths and min(depths) <= depth <= max(depths)):
            names.append(curve_name(init, power, depth))
    return list(dict.fromkeys(names))


def _note(claim: Claim, rows: pandas.DataFrame, last: str, checked: dict) -> str:
    """Why a reading is not counted, if it is not; `last` is the last part of its name."""
    there = sum(not curve_of(rows, *curve).empty for curve in claim.single_curves)
    in_part = f"{there} of {len(claim.single_curves)} curves" if there < len(claim.single_curves) else ""
    hardly = "" if claim.early else _hardly_trained(rows)
    if last.startswith("c="):  # rows that stand in for c = 2
        hardly = hardly.replace("(c = 2)", f"({last.replace('=', ' = ')})")
    curves = rows[["reading", *CURVE]].drop_duplicates().itertuples(index=False)
    keys = [(reading, init, None if pandas.isna(power) else power, depth) for reading, init, power, depth in curves]
    by = ", ".join(dict.fromkeys(checked[key] for key in keys if checked.get(key)))
    never = "" if last.startswith("after") else ", ".join(_unchecked(claim, rows, checked))
    never = never and f"never compared with the paper's schedule: {never}"
    return "; ".join(filter(None, (in_part, hardly, by and f"changed by the short schedule: {by}", never)))


def _hardly_trained(rows: pandas.DataFrame) -> str:
    """The curves with a width whose networks hardly trained: the mean loss fell by less than 2 %."""
    if "loss_over_time" not in rows:
        return ""
    good = rows[usable(rows, "stability") & rows["loss_over_time"].map(lambda v: isinstance(v, list) and len(v) > 1)]
    good, names = good.assign(kept=good["loss_over_time"].map(lambda v: v[-1] / v[0] if v[0] else 1.0)), []
    for (_, *curve), same in good.groupby(["model", *CURVE], dropna=False):
        still = same.groupby("width")["kept"].mean()
        if (still > 0.98).any():
            names.append(f"{curve_name(*curve)} at width {', '.join(map(str, still.index[still > 0.98]))}")
    return f"hardly trained: {'; '.join(names)}" if names else ""


def _left_out(rows: pandas.DataFrame) -> str:
    words = []
    for row in rows[~(usable(rows, "stability") & usable(rows, "kappa"))].itertuples():
        why = row.status if row.status != "ok" else "a measure is zero or not finite"
        words.append(f"{curve_name(row.init, row.power, row.depth)}, width {row.width}, seed {row.seed} ({why})")
    more = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return f"left out of {len(rows)} runs: " + "; ".join(words[:8]) + more if words else ""


def _company(rows: pandas.DataFrame) -> str:
    """What must stand beside P: training loss, test accuracy and seeds."""
    good = rows[usable(rows, "stability")]
    if good.empty:
        return ""
    seeds = good.groupby([*CURVE, "width"], dropna=False).size()
    ranges = {"training loss": good["train_loss"], "test accuracy": good["test_accuracy"], "seeds per cell": seeds}
    known = {name: values.dropna() for name, values in ranges.items()}
    return ", ".join(f"{name} {v.min():.3g} to {v.max():.3g}" for name, v in known.items() if len(v))


def _grid(rows: pandas.DataFrame) -> str:
    if rows.empty:
        return ""
    seeds = rows.groupby([*CURVE, "width"], dropna=False)["seed"].nunique()
    ends = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    lists = [", ".join(map(str, sorted(rows[name].unique()))) for name in ("width", "depth")]
    return f"widths {lists[0]}; depths {lists[1]}; seeds per cell {ends}"


def _finding(parts: list[Part]) -> str:
    """The first and the last part, up to the first semicolon and without what stands in brackets."""
    shown = [part.text for part in parts if part.answer != "none"]
    seen = [re.sub(r" \((?!c = )[^()]*\)", "", text).split("; ")[0] for text in shown]
    return "; ".join(seen if len(seen) < 3 else [seen[0], "...", seen[-1]])


def _missing(claim: Claim, parts: list[Part], gaps: set) -> list[str]:
    """How many runs are missing, and the command that trains them."""
    profile = "laptop" if cells_of(claim.id, "laptop") else "paper"
    lacking = sum(cell.key in gaps for cell in cells_of(claim.id, profile))
    lines = [f"{lacking} of the runs in its grid are missing"] if lacking else []
    if claim.curves and (lacking or any(part.answer == "missing" for part in parts)):
        lines.append(f"`python -m robustkit run {profile} --claim {claim.id}` trains what is missing")
    return lines


def _tally(parts: list[Part]) -> str:
    """How many parts a verdict has, and how they were answered."""
    answers = Counter(part.answer for part in parts if part.answer != "none")
    words = [f"{answers[answer]} {word}" for answer, word in ANSWERS.items() if answers[answer]]
    return f"{answers.total()} parts: {', '.join(words)}" if answers.total() > 1 else ""


def _told(parts: list[Part]) -> list[str]:
    """What each part saw, with the effect that it would have detected."""
    return [p.text + (f"; detectable: a ratio of {p.mde:.3g}" if math.isfinite(p.mde) else "") for p in parts]


def _entry(claim: Claim, rows: pandas.DataFrame, only_digits: bool, further: dict, gaps: set, checked: dict) -> dict:
    rows = rows[rows["model"].isin(claim.models)]
    readings = _readings(claim, rows)
    main, *others = readings or [()]
    parts = [*_judge(claim, readings.get(main, rows.iloc[:0])), *_further(claim, further)]
    # A model that serves for comparison is not counted.
    own = {r: same[same["model"] == claim.models[0]] for r, same in readings.items()}
    judged = own.get(main, rows.iloc[:0])
    notes = {r: _note(claim, same, r[-1], checked) for r, same in readings.items()}
    judged_as = {main: parts} | {r: _judge(claim, readings[r], whole=False) for r in others}
    verdicts = {r: verdict_of(seen, claim.either) for r, seen in judged_as.items()}
    hypotheses = judged_as.get(THEOREM_1_READING, ()) if "theorem1" in claim.grids else ()

    evidence = [f"reading: {', '.join(main)}"] if main else []
    if "flow10" in main:
        evidence.append("flow10 is the short schedule (a tenth of the steps at ten times the learning rate)")
    evidence += _told(parts)
    evidence += filter(None, (_company(judged), _left_out(judged), notes.get(main)))
    evidence += _missing(claim, parts, gaps)
    if others and only_digits:
        evidence.append("other readings available: " + "; ".join(map(", ".join, others)))
    for other in () if only_digits else others:
        note = f" (not counted: {notes[other]})" if notes[other] else ""
        whole = other == THEOREM_1_READING and hypotheses
        brief = "" if whole else _finding(judged_as[other])
        text = f"under {', '.join(other)}: {verdicts[other]}{note}"
        evidence.append("; ".join(filter(None, (text, brief, _company(own[other])))))
        evidence += _told(hypotheses) if whole else ()

    counts = Counter(sorted((verdicts[r] for r in readings if not notes[r]), key=VERDICTS.index))
    counted = f"{counts.total()} counted: {', '.join(f'{n} {word}' for word, n in counts.items())}" if counts else ""
    aside = sum(map(bool, notes.values()))
    seen = sorted(
        {f"{part.mde:.3g}": part.mde for part in parts if math.isfinite(part.mde)}.items(), key=lambda i: i[1]
    )
    ends = list(dict.fromkeys(text for text, _ in seen[:1] + seen[-1:]))
    told = {name: getattr(claim, name) for name in ("id", "source", "claim", "quote", "hypotheses", "criterion")}
    line = told | {
        "grid": _grid(judged),
        "finding": _finding(parts),
        "figure": claim.figure,
        "verdict": verdicts[main],
        "parts": _tally(parts),
        "under_theorem1": verdicts[THEOREM_1_READING] if hypotheses else "",
        "finding_under_theorem1": _finding(hypotheses),
        "readings": "; ".join(filter(None, (counted, f"{aside} not counted" if aside else ""))),
        "evidence": "\n".join(evidence),
        "n": int((usable(judged, "stability")).sum()) if len(judged) else 0,
        "detectable": f"a ratio of {' to '.join(ends)}" if ends else "",
        "readings_detail": json.dumps({", ".join(r): verdicts[r] for r in readings}),
        "readings_notes": json.dumps({", ".join(r): note for r, note in notes.items() if note}),
        "authors_response": "",
    }
    if only_digits:
        line |= {"verdict": DIGITS, "evidence": line["evidence"].replace("inconclusive", "undecided")}
        line |= dict.fromkeys(("parts", "under_theorem1", "readings", "readings_detail", "readings_notes"), "")
    return line


def ledger(rows: pandas.DataFrame, *, only=None, further: dict | None = None) -> pandas.DataFrame:
    """One row per claim, with the verdict that these rows give; columns as in LEDGER_COLUMNS.

    A claim reads the rows of its own models, mostly of fully connected nets, and pools only rows of one reading
    (dataset, scaling, loss, schedule and every other choice): first the one that the claim asks for (mostly MNIST raw
    under cross-entropy and the full schedule), where it is there, else the nearest. Digits rows are read only where
    there are no others, and then no verdict is given.
    A reading that lacks a curve of the claim, holds networks that hardly trained, or is of the short schedule where
    that changes P or was never compared (see proxy_schedule.py), gets its verdict but is not counted in "readings";
    readings_notes tells why. Runs that check the short schedule, of Lemma 4 and of the limit are no readings.
    rows: as from robustkit.load() or robustkit.collect. only: ids of claims. further: {measure: rows as from
    robustkit.load_further}; "stability_path" serves controls at a common loss. Raises InputError on an unknown id.
    """
    for name in only or ():
        check_choice("claim", name, BY_ID)
    gaps = {cell.key for cell in rows.attrs.get("missing", ())}
    if rows.empty:
        rows = pandas.DataFrame(columns=[*Cell.__dataclass_fields__, "status", "schedule", "stability", "kappa"])
    only_digits = bool(len(rows)) and set(rows["dataset"]) == {"digits"}
    # Theorem 2 asks for m >> d: its small runs are on digits, d = 64, one output.
    rows = rows[only_digits | (rows["dataset"] != "digits") | (rows["target"] == "parity")]
    rows = rows.assign(reading=[reading_of(row) for row in rows.to_dict("records")])
    rows.attrs = {}  # pandas would copy them at each step
    checked, beside = proxy_schedule.checked(rows), set(twin_cells("laptop"))
    beside |= {cell for name in ("lemma4", "kernel", "kernel_wide") for cell in named_cells(name, "laptop")}
    if "key" in rows:
        rows = rows[~rows["key"].isin({cell.key for cell in beside})]
        paths = (further or {}).get("stability_path", pandas.DataFrame(columns=["cell_key", "path_over_time"]))
        rows = rows.assign(path=rows["key"].map(paths.set_index("cell_key")["path_over_time"].to_dict()))
    chosen = [claim for claim in CLAIMS if only is None or claim.id in only]
    table = [_entry(claim, rows, only_digits, further or {}, gaps, checked) for claim in chosen]
    return pandas.DataFrame(table, columns=list(LEDGER_COLUMNS))


def to_markdown(table: pandas.DataFrame) -> str:
    """The ledger as a page: a table of verdicts, then each claim in the paper's words with criterion and evidence."""
    template = Path(__file__).with_name("claims.md.jinja").read_text(encoding="utf-8")
    values = {"rows": list(table.itertuples()), "lead": LEAD, "rules": RULES}
    return Template(template, trim_blocks=True, lstrip_blocks=True).render(values)


def save(table: pandas.DataFrame, profile: str) -> pandas.DataFrame:
    """Write the ledger as figures/<profile>/claims.md and claims.csv, and return it."""
    write_atomically(figures_folder(profile) / "claims.md", to_markdown(table))
    write_atomically(figures_folder(profile) / "claims.csv", table.to_csv(index=False))
    return table
