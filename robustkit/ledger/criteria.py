"""How a claim is judged: small pure functions from rows to answers, each with what was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas

from .. import theory
from ..cell import INSTANTS, Cell, dataset_info
from . import statistics

NAMES = {"he": "He", "lecun": "LeCun", "ntk": "NTK", "power": "non-lazy", "gain": "gain"}
PAPER_WIDTH = 2**14
GROWTH = 1.1  # "almost unchanged": kappa grows by less than this after the first tenth of training
# What may differ between the rows of one reading. Rows that differ in anything else are never pooled.
FREE = {"width", "depth", "seed", "init", "power", "gain", "epochs", "lr"}


@dataclass(frozen=True)
class Part:
    """One judgement: yes, partly, no, inconclusive or missing; what was seen; the ratio it could have detected."""

    answer: str
    text: str
    mde: float = math.nan


# ---------------------------------------------------------------------------------------------- rows


def curve_of(rows: pandas.DataFrame, init: str, power=None, depth=None) -> pandas.DataFrame:
    keep = (rows["init"] == init) & ((rows["power"] == power) if power is not None else True)
    return rows[keep & ((rows["depth"] == depth) if depth is not None else True)]


def curve_name(init: str, power=None, depth=None) -> str:
    return NAMES[init] + (f" (c = {power:g})" if power is not None else "") + (f", L={depth}" if depth else "")


def values_by(rows: pandas.DataFrame, y: str, by: str = "width") -> dict[float, list[float]]:
    """{x: values over seeds} of the rows that ended well; a cell whose every seed is bad stays, empty."""
    curve = {float(x): [] for x in sorted(rows[by].unique())}
    good = usable(rows, y)
    for x, value in zip(rows.loc[good, by], rows.loc[good, y], strict=True):
        curve[float(x)].append(float(value))
    return curve


def usable(rows: pandas.DataFrame, y: str) -> pandas.Series:
    value = rows[y].astype(float)
    return (rows["status"] == "ok") & np.isfinite(value) & (value > 0)


def shown(finding: statistics.Finding) -> str:
    return f"{finding.estimate:.3g} [{finding.low:.3g}, {finding.high:.3g}]"


def reading_of(row: dict) -> tuple:
    """What a row shares with the rows it may be pooled with: four main choices, then what is not at its default."""
    main = tuple(str(row.get(name, "?")) for name in ("dataset", "scaling", "loss", "schedule"))
    others = []
    for name, field in Cell.__dataclass_fields__.items():
        if name in FREE or name in ("dataset", "scaling", "loss") or name not in row:
            continue
        value = tuple(row[name]) if isinstance(row[name], (list, tuple)) else row[name]
        value = None if isinstance(value, float) and math.isnan(value) else value
        if value != field.default:
            others.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    return (*main, *others)


def reading_rank(item, wanted=("mnist", "raw", "cross_entropy", "full")) -> tuple:
    """The wanted reading first, then the one nearest to it, then the one with most rows."""
    reading, rows = item
    return *(a != b for a, b in zip(reading, wanted, strict=False)), len(reading), -len(rows)


# ---------------------------------------------------------------------------------------------- judgements


def _answer(finding: statistics.Finding, yes: str, no: tuple) -> str:
    return "yes" if finding.outcome == yes else "no" if finding.outcome in no else "inconclusive"


def trend(rows, y, way, *, name, by="width", family=1) -> Part:
    found = statistics.trend(values_by(rows, y, by), family=family)
    answer = _answer(found, way, tuple({"up", "down", "mixed", "none"} - {way}))
    return Part(answer, f"{name}: TREND {found.outcome}, end to end {shown(found)} ({found.note})", found.mde)


def peak(rows, y, *, name, depth=None, wanted=True, family=1) -> Part:
    predicted = theory.peak_width(depth) if depth else None
    found = statistics.peak(values_by(rows, y), predicted=predicted, family=family)
    text = f"{name}: PEAK {found.outcome}, highest inside over the higher end {shown(found)} ({found.note})"
    if predicted and rows["width"].max() < 2 * predicted:
        text += f"; PEAK needs a grid well past L^3/2 = {predicted:g}: widest run is {rows['width'].max()}"
    yes, no = ("peak", ("none",)) if wanted else ("none", ("peak",))
    answer = _answer(found, yes, no)
    if found.outcome == "none" and rows["width"].max() < PAPER_WIDTH:  # part of a grid cannot show that there is none
        answer = "inconclusive"
        text += f"; undecided: the paper's widths go on to {PAPER_WIDTH}, these to {rows['width'].max()}"
    return Part(answer, text, found.mde)


def _sides(rows: pandas.DataFrame, depth: int) -> str:
    """Log-slope of P in width on each side of the width at which a net has as many weights as training points."""
    data = dataset_info(rows["dataset"].iloc[0])
    d_in, curve = math.prod(data.shape), values_by(rows, "stability")
    fewer = [m for m in curve if m * (d_in + (depth - 2) * m + data.classes) < data.n_train]
    sides = {"fewer": fewer, "more": [m for m in curve if m not in fewer]}
    found = {side: statistics.rate({m: curve[m] for m in widths}) for side, widths in sides.items()}
    words = [
        f"{side}: {shown(f)}" if f.outcome == "measured" else f"{side}: not measured" for side, f in found.items()
    ]
    return "; log-slope with fewer or more parameters than training points: " + ", ".join(words)


def peaks_in_width(rows) -> list[Part]:
    parts, curves = [], list(rows.groupby(["init", "depth"]))
    for (init, depth), curve in curves:
        part = peak(curve, "stability", name=curve_name(init, depth=depth), depth=depth, family=len(curves))
        parts.append(Part(part.answer, part.text + _sides(curve, depth), part.mde))
    return parts


def _list(values) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(values)))


def depth_controls(rows: pandas.DataFrame) -> list[Part]:
    """TREND over depth before training, and at the loss that the least trained depth of each width ends at."""
    if "loss_at_stability" not in rows:
        return []
    words, good = [], rows[usable(rows, "stability")]
    good = good[good.groupby("width")["depth"].transform("nunique") > 2]
    for name in ("at initialisation", "at matched training loss"):
        ways: dict[str, list] = {}
        for width, curve in good.groupby("width"):
            if name == "at initialisation":
                values = values_by(curve, "stability_init", "depth")
            else:
                common = curve.groupby("depth")["train_loss"].mean().max()
                values = _at_loss(curve, dict.fromkeys(curve["depth"].unique(), common), "depth")
            found = statistics.trend(values)
            ways.setdefault(found.outcome, []).append(f"{width} ({found.estimate:.3g})")
        words.append(f"{name} " + "; ".join(f"{way} at width {', '.join(at)}" for way, at in ways.items()))
    return [Part("none", f"controls, end over start in brackets: {'. '.join(words)}")]


def trends_in_depth(way: str):
    def judge(rows) -> list[Part]:
        depths, parts, waiting = set(rows["depth"]), [], []
        family = max(1, int((rows.groupby("width")["depth"].nunique() > 2).sum()))
        for width, curve in rows.groupby("width"):
            if curve["depth"].nunique() < 3 <= len(depths):
                waiting.append(width)  # just begun: noted, and judged when it has three depths
                continue
            name = f"width {width}, L={_list(curve['depth'])}"
            parts.append(trend(curve, "stability", way, name=name, by="depth", family=family))
            if absent := depths - set(curve["depth"]):
                parts.append(Part("missing", f"width {width}, L={_list(absent)}: no rows"))
        if parts and waiting:
            text = f"{parts[-1].text}; not judged yet, with fewer than three depths: width {_list(waiting)}"
            parts[-1] = Part(parts[-1].answer, text, parts[-1].mde)
        return [*parts, *depth_controls(rows)] if parts else []

    return judge


def compare(larger, smaller, name) -> list[Part]:
    overall, cells = statistics.compare(larger, smaller)
    parts = [Part(c.outcome, f"width {m:g}: {name} {shown(c)}, n = {c.n}", c.mde) for m, c in cells.items()]
    if not parts:
        return [Part("inconclusive", f"{name}: {overall.note}")]
    text = f"every width: {overall.outcome}; mean ratio {shown(overall)}"
    text += f"; only one of the two at width {_list(overall.missing)}" if overall.missing else ""
    return [*parts, Part(overall.outcome, text, overall.mde)]


def two_curves(y: str, flip: bool, name: str):
    def judge(rows) -> list[Part]:
        lazy, other = curve_of(rows, "he"), curve_of(rows, "power", 2)
        if lazy.empty or other.empty:
            return []
        parts = compare(*[values_by(r, y) for r in ((other, lazy) if flip else (lazy, other))], name)
        if y == "stability" and "loss_at_stability" in rows:
            text = _matched(lazy, other)
            parts[-1] = Part(parts[-1].answer, parts[-1].text + text, parts[-1].mde)
        return parts

    return judge


def _at_loss(rows: pandas.DataFrame, loss: dict, by: str = "width") -> dict[float, list[float]]:
    """{x: P over seeds} where the training loss first came down to loss[x], between recorded instants; x as `by`."""
    curve = {}
    for row in rows[usable(rows, "stability") & rows[by].isin(list(loss))].itertuples():
        losses, values = (np.array(v, dtype=float) for v in (row.loss_at_stability, row.stability_over_time))
        losses, logs = np.minimum.accumulate(np.log(np.maximum(losses, 1e-12))), np.log(np.maximum(values, 1e-300))
        x = getattr(row, by)
        value = np.interp(math.log(loss[x]), losses[::-1], logs[::-1])
        curve.setdefault(float(x), []).append(math.exp(value))
    return curve


def _matched(lazy: pandas.DataFrame, other: pandas.DataFrame) -> str:
    ends = [r[usable(r, "stability")].groupby("width")["train_loss"].mean() for r in (lazy, other)]
    common = {m: max(e[m] for e in ends) for m in set(ends[0].index) & set(ends[1].index)}
    found, cells = statistics.compare(_at_loss(lazy, common), _at_loss(other, common))
    above = sum(c.outcome == "yes" for c in cells.values())
    return f"; control at matched training loss: mean ratio {shown(found)}, above 1 at {above} of {len(cells)} widths"


def no_transition(rows) -> list[Part]:
    falls = trend(rows, "stability", "down", name="falls with width")
    if "loss_at_stability" in rows:
        good = rows[usable(rows, "stability")]
        common = good.groupby("width")["train_loss"].mean().max() if len(good) else math.nan
        found = statistics.trend(_at_loss(rows, dict.fromkeys(good["width"].unique(), common)))
        text = f"; control at the common training loss {common:.3g}: {found.outcome}, end to end {shown(found)}"
        falls = Part(falls.answer, falls.text + text, falls.mde)
    return [falls, peak(rows, "stability", name="no phase transition", wanted=False)]


def _below(rows, y: str, limit: float, name: str) -> list[Part]:
    parts = []
    for m, cell in statistics.intervals(values_by(rows, y)).items():
        answer = "yes" if cell.high < limit else "no" if cell.low > limit else "inconclusive"
        text = (
            f"width {m:g}: {name} {cell.mean:.3g} [{cell.low:.3g}, {cell.high:.3g}] against {limit:g}, n = {cell.n}"
        )
        parts.append(Part(answer, text, cell.high / cell.mean))
    return parts


def small_and_still(rows) -> list[Part]:
    tenth = INSTANTS.index(0.1)
    ratios = [
        k[-1] / k[tenth] if isinstance(k, (list, tuple)) and k[tenth] else math.nan for k in rows["kappa_over_time"]
    ]
    rows = rows.assign(growth=ratios)
    return _below(rows, "kappa", 1.0, "kappa") + _below(rows, "growth", GROWTH, "kappa, end over first tenth,")


LINEAR = {
    "yes": "linear is best by AIC, or within 2 of it",
    "partly": "linear beats sqrt and log and explains 95 %, an exponential start beats linear",
    "no": "sqrt or log beats linear, a line explains less than 95 %, or there is no growth",
    "inconclusive": "seeds disagree on the law",
}


def linear_in_time(rows) -> list[Part]:
    """AIC within 2 of the best is yes; behind the law that bends up alone, with R^2 from 0.95 on, is partly.

    Seeds must agree.
    """
    half, parts = INSTANTS.index(0.5), []
    for width, cell in rows[usable(rows, "kappa")].groupby("width"):
        answers, laws = set(), []
        for kappa in cell["kappa_over_time"]:
            fits = statistics.growth(INSTANTS[1 : half + 1], kappa[1 : half + 1])
            if not fits or kappa[half] <= kappa[1]:
                answers.add("no")
                continue
            line, bends = fits["linear"][0], min(fits["sqrt"][0], fits["log"][0])
            best = min(aic for aic, _ in fits.values())
            near = line < bends and fits["linear"][1] >= 0.95
            answers.add("yes" if line <= best + 2 else "partly" if near else "no")
            laws.append({law: r_squared for law, (_, r_squared) in fits.items()})
        mean = pandas.DataFrame(laws).mean()
        r_squared = ", ".join(f"{law} {value:.4f}" for law, value in mean.items()) or "no growth"
        answer = answers.pop() if len(answers) == 1 else "inconclusive"
        parts.append(Part(answer, f"width {width}: {LINEAR[answer]}; mean R^2: {r_squared}; n = {len(cell)}"))
    return parts
