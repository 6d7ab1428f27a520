"""Figures and tables as files: one style, a caption that says what is shown, and the numbers beside the picture."""

from __future__ import annotations

import io
import textwrap

import matplotlib.pyplot as plt
import pandas
import seaborn

from ..files import figures_folder, write_atomically
from ..ledger.rows import NAMES

SEVERAL = 8  # a caption lists no more curves than these


def panels(columns: int, rows: int = 1, *, width: float = 3.5, height: float = 2.9, **options):
    """A figure in print size with the project's one style, and its axes."""
    seaborn.set_theme(context="paper", style="ticks", palette="colorblind")
    plt.rcParams.update({"savefig.dpi": 200, "figure.dpi": 110, "legend.frameon": False, "axes.titlesize": 9})
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False, **options
    )
    return figure, (axes[0] if rows == 1 else axes)


def caption(rows: pandas.DataFrame | None, profile: str) -> str:
    """What a figure shows: profile, data, scaling, schedule, loss, seeds, n, points, and what is missing."""
    if rows is None:
        return "a drawing, no data"
    gaps = rows.attrs.get("missing", [])
    if rows.empty and not gaps:
        return f"profile {profile}: it has no such trainings"
    if rows.empty:
        command = f"python -m robustkit run {'laptop' if profile == 'shipped' else profile}"
        return f"profile {profile}: no rows yet, {len(gaps)} trainings missing ({command})"
    lists = {name: ", ".join(map(str, rows[name].unique())) for name in ("dataset", "scaling", "schedule", "loss")}
    names = (
        "model",
        "head",
        "init",
        "depth",
        "width",
        "power",
        "gain",
        "dataset",
        "scaling",
        "loss",
        "schedule",
        "lr_rule",
        "n_train",
    )
    cells = [rows[name].fillna(0) for name in names]
    counts = (rows["status"] == "ok").groupby(cells).sum()
    # A further measure has points of its own, whatever its trainings were measured on.
    points = rows.attrs.get("points", sorted(rows["points"].unique()))
    n = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    text = (
        f"profile {profile}: {lists['dataset']}, {lists['scaling']} scaling, schedule {lists['schedule']}, "
        f"{lists['loss'].replace('_', ' ')}; seeds {', '.join(map(str, sorted(rows['seed'].unique())))} "
        f"(n = {n} a point), {' or '.join(map(str, points))} test points"
    )
    bad = (rows["status"] != "ok").sum()
    text += f"; {bad} trainings failed or diverged and are not drawn" if bad else ""
    if gaps:
        text += f"\nunfinished: {len(gaps)} of {len(rows) + len(gaps)} trainings are missing{_gaps(gaps, rows)}"
    return text


def _gaps(cells, rows: pandas.DataFrame) -> str:
    """Points of the grid that have no row at all, by width; the others lack seeds, which n shows.

    Of several networks, the widths, "in part" where some of a width's points have rows. Long lists are left out.
    """
    names = ["model", "head", "lr", "init", "power", "depth", "width"]
    there = set(rows[names].astype({"power": float}).fillna(0).itertuples(index=False, name=None))
    networks, widths = len({point[:3] for point in there}) > 1, {(*point[:3], point[-1]) for point in there}
    several = len({init for *_, init, _, _, _ in there} | {cell.init for cell in cells}) > 1
    empty = {}
    for cell in cells:
        own = cell.model, cell.head or 0, cell.lr
        if (*own, cell.init, cell.power or 0, cell.depth, cell.width) not in there:
            what = f"L={cell.depth}" if cell.power is None else f"c={cell.power:g}"
            what = f"{NAMES[cell.init]} {what}" if several and cell.power is None else what
            part = " in part" if networks and (*own, cell.width) in widths else ""
            place = (f"{cell.head or cell.model}, rate {cell.lr:g}", f"m={cell.width}{part}")
            place = place if networks else (place[1], what)
            empty.setdefault(place[0], {})[place[1]] = None
    points = [
        place if len(whats) > SEVERAL else f"{place} ({', '.join(whats)})"
        for place, whats in sorted(empty.items(), key=_by_number)
    ]
    return f"; no row yet at {', '.join(points)}" if points else ", seeds of points that have others"


def _by_number(item: tuple[str, dict]) -> tuple:
    place = item[0]
    return (0, int(place[2:])) if place.startswith("m=") else (1, place)


def save(figure, name: str, profile: str, rows: pandas.DataFrame | None) -> None:
    """Write figures/<profile>/<name>.png, .pdf and the .csv of what is drawn; say below what the figure shows.

    The pictures are written again only if the numbers changed, so that a second run leaves the files as they are.
    Raises OSError, with the path and the old content kept, if a file cannot be written.
    """
    width = int(21 * figure.get_figwidth())  # characters of this size in a line
    lines = [part for line in caption(rows, profile).split("\n") for part in textwrap.wrap(line, width)]
    figure.supxlabel("\n".join(lines), fontsize=6, color="0.35")
    seen = []
    # One legend serves panels with the same lines.
    for legend in filter(None, (ax.get_legend() for ax in figure.axes)):
        labels = [text.get_text() for text in legend.get_texts()]
        legend.remove() if labels in seen else seen.append(labels)
    tables = [t.assign(panel=i) for i, ax in enumerate(figure.axes) for t in getattr(ax, "robustkit_tables", ())]
    content = pandas.concat(tables).to_csv(index=False, float_format="%.6g") if tables else "quantity\n"
    path = figures_folder(profile) / name
    content = f"# {caption(rows, profile)}".replace("\n", "; ") + "\n" + content
    csv = path.with_name(f"{name}.csv")
    pictures = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    there = all(path.with_name(f"{name}.{ending}").exists() for ending in pictures)
    if not there or not csv.exists() or csv.read_text() != content:
        for ending, metadata in pictures.items():
            picture = io.BytesIO()
            figure.savefig(picture, format=ending, metadata=metadata)
            write_atomically(path.with_name(f"{name}.{ending}"), picture.getvalue())
        write_atomically(csv, content)  # last: a picture without its numbers is drawn again


def save_table(table: pandas.DataFrame, name: str, profile: str) -> pandas.DataFrame:
    """Write a table as figures/<profile>/<name>.md, .tex and .csv with 6 significant digits, and return it."""
    path = figures_folder(profile) / name
    cells = [[f"{v:.6g}" if isinstance(v, float) else str(v) for v in row] for row in table.itertuples(index=False)]
    lines = [" | ".join(line) for line in [list(map(str, table.columns)), ["---"] * table.shape[1], *cells]]
    write_atomically(path.with_name(f"{name}.md"), "".join(f"| {line} |\n" for line in lines))
    write_atomically(path.with_name(f"{name}.csv"), table.to_csv(index=False, float_format="%.6g"))
    write_atomically(path.with_name(f"{name}.tex"), table.to_latex(index=False, float_format="%.6g"))
    return table
