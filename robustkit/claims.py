"""The ledger: what the paper says, as statements that rows can decide, and the verdict they give.

Criteria were fixed after a small pilot and before the shipped runs, but for the rules that PREAMBLE names.
Verdicts are computed, never typed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pandas

from .config import Cell, figures_folder
from .criteria import (
    GROWTH,
    Part,
    curve_name,
    curve_of,
    linear_in_time,
    no_transition,
    peak,
    peaks_in_width,
    reading_of,
    reading_rank,
    small_and_still,
    trend,
    trends_in_depth,
    two_curves,
    usable,
    waits_for,
)
from .store import write_atomically

COLUMNS = ("id", "source", "claim", "hypotheses", "criterion", "verdict", "readings", "evidence", "n", "detectable")
COLUMNS += ("figure", "authors_response")
PREAMBLE = (
    "Criteria were fixed after a small pilot and before the shipped runs; verdicts are computed from rows. Three "
    "rules were added after rows had been seen. That a curve has no peak is said of the paper's whole grid of "
    "widths, 16 to 16384, never of a part of it (E04, E06, E08, E11). Of two rival versions, a no to one leaves "
    "the other open (E04). A width that has fewer than three depths so far is noted and not judged (E09, E10); "
    "this one raised the verdict on E09, when the first nets of width 512 had come in at one depth alone."
)
DIGITS = "(digits: pipeline check only)"
VERDICTS = ("reproduced", "partly", "not reproduced", "inconclusive", "outside hypotheses", "missing")
DEPTHS = (2, 4, 6, 8, 10)


@dataclass(frozen=True)
class Claim:
    """One statement of the paper. `curves` are the (init, power, depths) it rests on; `judge` maps rows to Parts.

    `either`: the parts are rival versions of which at most one can hold, so that one "yes" is all there can be.
    """

    id: str
    source: str
    figure: str
    claim: str
    quote: str
    hypotheses: str
    criterion: str
    curves: tuple
    judge: Callable[[pandas.DataFrame], list[Part]]
    either: bool = False


# ---------------------------------------------------------------------------------------------- the entries

HE, LECUN, SMALL = ("he", None, (2,)), ("lecun", None, DEPTHS), ("power", 2.0, (2,))
ALL_DEPTHS = ("he", None, DEPTHS)
FIGURE = "none: the figure's own setting (raw pixels, cross-entropy), which no theorem covers"
PEAK = (
    "PEAK: an interior width exceeds both ends by 5 % plus 2 standard errors (more, to share 5 % over the widths), "
    "on a grid that reaches twice L^3/2"
)
TREND = "linear contrast on log P, p < .01, end-to-end ratio beyond 1.1, no step significantly the other way"

CLAIMS = (
    Claim(
        "E01", "N Fig. 2a, W Fig. 4a", "N2", "He, two layers: kappa is small and almost unchanged over epochs",
        "Fig. 2(a) shows that ratio κ is small and almost unchanged, recognized as lazy training.", FIGURE,
        f"at each width: the interval of kappa lies below 1; that of kappa(end)/kappa(first tenth) below {GROWTH}",
        (HE,), small_and_still,
    ),
    Claim(
        "E03", "N Fig. 3a, W Fig. 5a", "N3", "Non-lazy: kappa grows almost linearly in time",
        "The ratio increases almost linearly over time in Fig. 3(a).", FIGURE,
        "at each width, first half of training (constant rate): linear against sqrt, log and exponential then linear "
        "by AIC, with R^2 of each",
        (SMALL,), linear_in_time,
    ),
    Claim(
        "E05", "N Sec. 5.2, W E.2", "N3", "Non-lazy kappa is much higher than lazy kappa",
        "However, the value of κ is much higher than that of lazy training regime.", FIGURE,
        "COMPARE: one-sided p < .05 at every width", (HE, SMALL), two_curves("kappa", True, "kappa, c = 2 over He,"),
    ),
    Claim(
        "E06", "N Fig. 4a, W Fig. 2a, abstract", "N4a", "P rises and then falls with width at all five depths",
        "All of the five curves confirm the phase transition with width: the perturbation stability firstly "
        "increases and then decreases with width, which match our theoretical results.", FIGURE,
        PEAK + ", for each depth", (ALL_DEPTHS,), peaks_in_width,
    ),
    Claim(
        "E07", "N Fig. 4b, W Fig. 2b", "N4b", "Non-lazy P is significantly below lazy P",
        "The perturbation stability of non-lazy training is significantly smaller than that of lazy training, which "
        "means non-lazy training regime is more robust.", FIGURE,
        "COMPARE: one-sided p < .05 at every width; matched training loss is a control",
        (HE, SMALL), two_curves("stability", False, "P, He over c = 2,"),
    ),
    Claim(
        "E08", "N Fig. 4b, W Fig. 2b", "N4b", "Non-lazy P falls with width, without a phase transition",
        "Besides, the perturbation stability of non-lazy training decreases with the width of the neural network "
        "increases, which coincides with our theoretical result, i.e., no phase transition phenomenon.", FIGURE,
        f"TREND down ({TREND}) and no PEAK; the common training loss is a control", (SMALL,), no_transition,
    ),
    Claim(
        "E09", "N Fig. 5a, W Fig. 3a", "N5a", "He: P rises with depth",
        "the perturbation stability under He initialization increases with depth, while the LeCun initialization "
        "shows the opposite tendency, which verified our theory.", FIGURE,
        f"TREND up over the depths at each width: {TREND}", (ALL_DEPTHS,), trends_in_depth("up"),
    ),
    Claim(
        "E10", "N Fig. 5b, W Fig. 3b", "N5b", "LeCun: P falls with depth",
        "the perturbation stability under He initialization increases with depth, while the LeCun initialization "
        "shows the opposite tendency, which verified our theory.", FIGURE,
        f"TREND down over the depths at each width: {TREND}; read it beside the training loss",
        (LECUN,), trends_in_depth("down"),
    ),
    Claim(
        "E15", "W Table 4", "", "ResNet-110: lazy and non-lazy accuracy are similar",
        "Notice that the non-lazy training regime achieves a similar performance to lazy training regime.",
        "our reading of the linked recipe; batch normalisation turns the initial scale into an effective rate",
        "interval of the paired difference in accuracy, 3 seeds, last and best epoch", (),
        waits_for("ResNet-110 on CIFAR-10 and CIFAR-100, He and non-lazy, 3 seeds each: no rows; twelve trainings "
                   "of 164 epochs would decide it"),
    ),
    Claim(
        "T12", "N Theorem 3, Remark", "", "Non-lazy P falls at least at the printed rate in width, early in training",
        "That is, as the width m increases in the over-parameterized regime, a Gaussian initialization with smaller "
        "variance leads to the robustness increasing in a faster decay.",
        "two layers, one output, squared loss, unit norm, c >= 1.5, m >> n^2, early time",
        "RATE at fixed flow time, against the theorem's 1/2 - c, the Remark's 3/2 - 2c and our 1 - 2c", (),
        waits_for("c = 2 and 3, squared loss, one output, unit norm, n = 8, 16, 32, widths up to 10 n^2 or more: "
                   "no rows; these small runs would decide it"),
    ),
    Claim(
        "E02", "N Fig. 2b, W Fig. 4b", "N2", "Lazy kappa falls with width",
        "In Fig. 2(b), we can see that the κ decreases with the increasing width.", FIGURE,
        f"TREND down, of kappa: {TREND}", (HE,), lambda rows: [trend(rows, "kappa", "down", name="kappa")],
    ),
    Claim(
        "E04", "N Fig. 3b, W Fig. 5b", "N3", "Non-lazy kappa in width: rises then falls (caption), or falls (text)",
        "The tendency of κ for non-lazy training is increasing with the width and then decreasing, i.e., a phase "
        "transition in Fig. 3(b). [caption] At the same time, Fig. 3(b) shows a similar tendency between the width "
        "and lazy training ratio as lazy training. [text]", FIGURE,
        "PEAK for the caption, TREND down for the text; both cannot hold", (SMALL,),
        lambda rows: [peak(rows, "kappa", name="caption"), trend(rows, "kappa", "down", name="text")],
        either=True,
    ),
    Claim(
        "E11", "N Fig. 5", "N5a", "The phase transition in width appears under He and under LeCun",
        "We observe a similar phase transition phenomenon", FIGURE,
        PEAK + ", for each initialisation and depth", (ALL_DEPTHS, LECUN), peaks_in_width,
    ),
    Claim(
        "E13", "W Fig. 7", "W7", "Variances 1/m^3 and 1/m^4: P falls with width",
        "shows that the robustness improves with the increase of the width of network which consistent with Theorem "
        "3", FIGURE, f"TREND down for c = 1.5 and c = 2: {TREND}", (("power", 1.5, (2,)), SMALL),
        lambda rows: [trend(r, "stability", "down", name=curve_name("power", c)) for c, r in rows.groupby("power")],
    ),
)  # fmt: skip


# ---------------------------------------------------------------------------------------------- the ledger


def _verdict(parts: list[Part], either: bool = False) -> str:
    """All yes: reproduced. Any yes beside others: partly. Else a no decides; then what is undecided; then missing.

    Of rival versions (`either`), a no to one leaves the other open: not reproduced needs a no to each.
    """
    answers = {part.answer for part in parts}
    if answers == {"yes"}:
        return "reproduced"
    order = {"yes": "partly", "partly": "partly", "no": "not reproduced", "inconclusive": "inconclusive"}
    if either and answers != {"no"}:
        order.pop("no")
    return next((verdict for answer, verdict in order.items() if answer in answers), "missing")


def _judge(claim: Claim, rows: pandas.DataFrame) -> list[Part]:
    parts = claim.judge(rows) if len(rows) or not claim.curves else []
    for init, power, depths in claim.curves:
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


def _entry(claim: Claim, rows: pandas.DataFrame, only_digits: bool) -> dict:
    curves = [curve_of(rows, init, power, depth) for init, power, depths in claim.curves for depth in depths]
    used = pandas.concat(curves) if curves else rows.iloc[:0]
    readings = sorted(used.groupby("reading", sort=False), key=reading_rank)
    reading, judged = readings[0] if readings else ((), used)
    parts = _judge(claim, judged)
    evidence = [f"reading: {', '.join(reading)}"] if reading else []
    if "flow10" in reading:
        evidence.append("the proxy schedule flow10: a tenth of the steps at ten times the rate")
    evidence += [part.text for part in parts]
    evidence += [text for text in (_company(judged), _left_out(judged)) if text]
    if any(part.answer == "missing" for part in parts) and claim.curves:
        evidence.append("`python -m robustkit run PROFILE` fills missing cells (laptop or paper)")
    verdicts = {r: _verdict(parts if r == reading else _judge(claim, found), claim.either) for r, found in readings}
    counts = Counter(sorted(verdicts.values(), key=VERDICTS.index))
    holds = f"{len(verdicts)} tried: " + ", ".join(f"{n} {word}" for word, n in counts.items()) if readings else ""
    if len(readings) > 1 and only_digits:
        evidence.append("other readings there: " + "; ".join(", ".join(other) for other, _ in readings[1:]))
    elif len(readings) > 1:
        words = "; ".join(f"{', '.join(other)}: {v}" for other, v in verdicts.items() if other != reading)
        evidence.append(f"readings, {holds}; beside the one judged: {words}")
    seen = [part.mde for part in parts if math.isfinite(part.mde)]
    return {
        **{name: getattr(claim, name) for name in ("id", "source", "claim", "hypotheses", "criterion", "figure")},
        "verdict": DIGITS if only_digits else verdicts.get(reading, _verdict(parts, claim.either)),
        "readings": "" if only_digits else holds,
        "evidence": "\n".join(evidence).replace("inconclusive", "undecided") if only_digits else "\n".join(evidence),
        "n": int((usable(judged, "stability")).sum()) if len(judged) else 0,
        "detectable": f"a ratio of {max(seen):.3g}" if seen else "",
        "authors_response": "",
    }


def ledger(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row a claim, with the verdict that these rows give; columns as in COLUMNS.

    Only fully connected rows are read, and only rows of one reading (dataset, scaling, loss, schedule and every other
    choice) are pooled: the main one, MNIST raw under cross-entropy and the full schedule, where it is there, else the
    nearest. Digits rows are read only where there are no others, and then no verdict is given.
    rows: as from robustkit.load().
    """
    if rows.empty:
        rows = pandas.DataFrame(columns=[*Cell.__dataclass_fields__, "status", "schedule", "stability", "kappa"])
    only_digits = bool(len(rows)) and set(rows["dataset"]) == {"digits"}
    keep = (rows["model"] == "fcn") & (only_digits | (rows["dataset"] != "digits"))
    rows = rows[keep]
    rows = rows.assign(reading=[reading_of(row) for row in rows.to_dict("records")])
    return pandas.DataFrame([_entry(claim, rows, only_digits) for claim in CLAIMS], columns=list(COLUMNS))


def to_markdown(table: pandas.DataFrame) -> str:
    """The ledger as a page: a table of verdicts, then each claim in the paper's words with criterion and evidence."""
    quotes = {claim.id: claim.quote for claim in CLAIMS}
    lines = ["# What the paper says, and what these runs give", ""]
    lines += [PREAMBLE]
    lines += ["", "| id | claim | verdict | readings | n | detectable |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.id} | {r.claim} | {r.verdict} | {r.readings} | {r.n} | {r.detectable} |" for r in table.itertuples()
    ]
    for row in table.itertuples():
        lines += ["", f"## {row.id}: {row.claim}", "", f"> {quotes[row.id]}", ">", f"> ({row.source})", ""]
        lines += [f"- **Verdict**: {row.verdict} (n = {row.n} trainings)", f"- **Criterion**: {row.criterion}"]
        lines += [f"- **Hypotheses**: {row.hypotheses}"]
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
