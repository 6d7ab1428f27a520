"""Figures and tables as files: a caption that says what is shown and what is missing, and the numbers beside them."""

from __future__ import annotations

import contextlib
import io

import pandas

from ..checks import InputError
from ..datasets import dataset_info
from ..files import figures_folder, write_atomically
from ..ledger.rows import readable
from .style import finish, label

SEVERAL = 8  # of a place in the grid with more points missing than these, none is named
# What makes a point: runs that differ in a seed alone are counted at one.
POINT = ["model", "head", "init", "depth", "width", "power", "gain"]
POINT += ["dataset", "scaling", "loss", "schedule", "lr_rule", "n_train"]
WORDS = {"full": "full schedule", "cross_entropy": "cross-entropy", "squared": "squared loss"}
WORDS["flow10"] = "short schedule (a tenth of the steps at ten times the learning rate)"


def folder(profile: str, **choices) -> str:
    """The folder of figures/ for a profile's own grid, or for other choices of seeds, widths or depths."""
    return profile if all(value is None for value in choices.values()) else f"{profile}-own"


def caption(rows: pandas.DataFrame | None, profile: str) -> str:
    """What a figure shows: profile, data, scaling, schedule, loss, seeds, n, points, and what is missing."""
    if rows is None:
        return "a drawing, no data"
    gaps, own = rows.attrs.get("missing", []), profile.endswith("-own")
    profile = profile.removesuffix("-own")
    said = f"profile {profile}, own choice of seeds, widths or depths" if own else f"profile {profile}"
    if rows.empty and not gaps:
        return f"{said}: it has no such runs"
    if rows.empty:
        command = f"python -m robustkit run {'laptop' if profile == 'shipped' else profile}"
        return f"{said}: no rows yet, {len(gaps)} runs missing ({command})"
    data, scaling, schedule, loss = (
        ", ".join(WORDS.get(value, value.replace(" at ", " at learning rate ")) for value in rows[name].unique())
        for name in ("dataset", "scaling", "schedule", "loss")
    )
    cells = [rows[name].fillna(0) for name in POINT]
    counts = (rows["status"] == "ok").groupby(cells).sum()
    # A further measure has points of its own, whatever its runs were measured on.
    points = rows.attrs.get(
        "points", sorted({_used(*pair) for pair in zip(rows["dataset"], rows["points"], strict=True)})
    )
    n = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    words = (
        f"{said}: {data}, {scaling} scaling, {schedule}, {loss}; "
        f"seeds {', '.join(map(str, sorted(rows['seed'].unique())))} (n = {n} per point), "
        f"{' or '.join(map(str, points))} test points"
    )
    bad = (rows["status"] != "ok").sum()
    words += f"; failed or diverged, and not drawn: {bad}" if bad else ""
    if gaps:
        words += f"\nunfinished: {len(gaps)} of {len(rows) + len(gaps)} runs are missing{_gaps(gaps, rows)}"
    return words


def _used(dataset: str, points: int) -> int:
    """The number of test points where a run asks for so many: at most all, as far as the dataset is still there."""
    with contextlib.suppress(InputError):
        return min(points, dataset_info(dataset).n_test)
    return points


def _gaps(cells, rows: pandas.DataFrame) -> str:
    """Points of the grid that have no row at all, by width; the others lack seeds, which n shows.

    Of several networks, the widths, "in part" where some of a width's points have rows. Long lists are left out.
    """
    names = ["model", "head", "lr", "init", "power", "depth", "width"]
    there = set(rows[names].astype({"power": float}).fillna(0).itertuples(index=False, name=None))
    networks, widths = len({point[:3] for point in there}) > 1, {(*point[:3], point[-1]) for point in there}
    several = len({init for *_, init, _, _, _ in there} | {cell.init for cell in cells}) > 1
    empty: dict[str, dict[str, None]] = {}
    for cell in cells:
        own = cell.model, cell.head or 0, cell.lr
        if (*own, cell.init, cell.power or 0, cell.depth, cell.width) in there:
            continue
        if networks:
            part = " in part" if (*own, cell.width) in widths else ""
            place = f"{cell.head or cell.model}, learning rate {cell.lr:g}", f"m={cell.width}{part}"
        else:
            name = label("init", cell.init) + " " if several and cell.power is None else ""
            place = f"m={cell.width}", f"c={cell.power:g}" if cell.power is not None else f"{name}L={cell.depth}"
        empty.setdefault(place[0], {})[place[1]] = None
    ordered = sorted(empty, key=None if networks else lambda place: int(place.removeprefix("m=")))
    points = [place if len(empty[place]) > SEVERAL else f"{place} ({', '.join(empty[place])})" for place in ordered]
    return f"; no row yet at {', '.join(points)}" if points else ", seeds of points that have others"


def save(figure, name: str, profile: str, rows: pandas.DataFrame | None) -> None:
    """Write figures/<profile>/<name>.png, .pdf and the .csv of what is drawn; say below what the figure shows.

    The pictures are written again only if the numbers changed, so that a second run leaves the files as they are.
    Raises OSError, with the path and the old content kept, if a file cannot be written.
    """
    words = caption(rows, profile)
    finish(figure, words)
    tables = [t.assign(panel=i) for i, ax in enumerate(figure.axes) for t in getattr(ax, "robustkit_tables", ())]
    content = pandas.concat(tables).to_csv(index=False, float_format="%.6g") if tables else "quantity\n"
    path = figures_folder(profile) / name
    content = f"# {words}".replace("\n", "; ") + "\n" + content
    csv = path.with_name(f"{name}.csv")
    pictures = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    there = all(path.with_name(f"{name}.{ending}").exists() for ending in pictures)
    if not there or not csv.exists() or csv.read_text(encoding="utf-8") != content:
        for ending, metadata in pictures.items():
            picture = io.BytesIO()
            figure.savefig(picture, format=ending, metadata=metadata)
            write_atomically(path.with_name(f"{name}.{ending}"), picture.getvalue())
        write_atomically(csv, content)  # last: a picture without its numbers is drawn again


def save_table(table: pandas.DataFrame, name: str, profile: str) -> pandas.DataFrame:
    """Write a table as figures/<profile>/<name>.md, .tex and .csv with 6 significant digits, and return it.

    What is read, the .md and the .tex, names initialisations and lies on its side if need be; the .csv does not.
    """
    path, csv = figures_folder(profile) / name, table.to_csv(index=False, float_format="%.6g")
    table = readable(table)
    cells = [[f"{v:.6g}" if isinstance(v, float) else str(v) for v in row] for row in table.itertuples(index=False)]
    lines = [" | ".join(line) for line in [list(map(str, table.columns)), ["---"] * table.shape[1], *cells]]
    write_atomically(path.with_name(f"{name}.md"), "".join(f"| {line} |\n" for line in lines))
    write_atomically(path.with_name(f"{name}.csv"), csv)
    write_atomically(path.with_name(f"{name}.tex"), table.to_latex(index=False, float_format="%.6g"))
    return table
