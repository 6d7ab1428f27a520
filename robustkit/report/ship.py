"""Rows and notebook outputs that are committed."""

from __future__ import annotations

from pathlib import Path

from ..cell import Cell, without_added
from ..checks import InputError
from ..files import ROOT, figures_folder, results_folder, write_atomically
from ..profiles import named_cells
from ..sweep import store
from .notebooks import build_notebook, build_notebooks, execute, notebooks

ON_DIGITS = ("theorem2", "kernel_digits", "kernel_digits_wide")  # the runs on digits that are shipped
SHIPPED_DATA = ("mnist", "cifar10", "cifar100")
ORDER = ("model", "dataset", "scaling", "loss", "epochs", "init", "power", "gain", "depth", "width", "seed")


def ship_rows(paths: list[Path]) -> tuple[int, list[str]]:
    """Merge local rows, or those of the files given, into results/shipped.jsonl, sorted.

    Digits are not shipped, but for runs that ask for m >> d: of Theorem 2, and towards the limit of infinite width.
    Returns how many rows are new, and a sentence for each that is left out, as it is not the row of its cell, and for
    each difference between engines (the first row is kept). Raises InputError if a file is not there, ConflictError
    if two rows of one engine differ; nothing is written then.
    """
    for path in paths:
        if not path.is_file():
            raise InputError(f"the file to ship is {str(path)!r}, but there is no such file")
    notes, on_digits = [], {cell.key for name in ON_DIGITS for cell in named_cells(name, "laptop")}
    with store.locked_folder(store.SHIPPED.parent):  # two of these at once would each write without the other's rows
        rows = store.read_rows(store.SHIPPED)
        before = len(rows)
        for path in paths or [store.local_path()]:
            finished = [row for row in store.read_rows(path) if row["status"] != "failed"]
            own = [row for row in finished if row["cell"]["dataset"] in SHIPPED_DATA or row["key"] in on_digits]
            other = [row for row in own if not _is_of_its_cell(row)]
            notes += [f"{row.place} is left out: its cell cannot be, or has another key by now" for row in other]
            rows, more = store.merge(rows, [row for row in own if row not in other], refuse=True)
            notes += more
        rows.sort(key=lambda row: ([str(row["cell"][n]).zfill(8) for n in ORDER], row.get("measure", ""), row["key"]))
        write_atomically(store.SHIPPED, "".join(store.encode(row) + "\n" for row in rows))
    return len(rows) - before, notes


def _is_of_its_cell(row: dict) -> bool:
    try:
        cell = Cell(**row["cell"])
    except InputError:
        return False
    return cell.key == row.get("cell_key", row["key"]) and cell.as_dict() == without_added(
        row["cell"] | {"milestones": tuple(row["cell"]["milestones"])}
    )


def ship_notebooks() -> list[str]:
    """Run every notebook on the shipped rows and write the outputs into the committed .ipynb; returns what failed."""
    from ..sweep.train_missing import run

    build_notebooks()
    for picture in figures_folder("shipped").glob("*.png"):
        picture.unlink()  # drawn anew even where only the style changed
    run(named_cells("your_turn", "smoke"), device="cpu")  # what the notebooks show of a reader's turn
    failed = execute("shipped")
    if not failed:
        for path in notebooks():
            build_notebook(path.with_suffix(".py"), results_folder() / "notebooks" / "shipped" / path.name)
        write_answer(ROOT / "README.md", figures_folder("shipped"))
    return failed


def write_answer(readme: Path, figures: Path) -> None:
    """Write the answer in five lines between its marks in the README."""
    before, rest = readme.read_text(encoding="utf-8").split("<!-- answer -->\n")
    answer, after = (figures / "answer.md").read_text(encoding="utf-8"), rest.split("<!-- /answer -->")[1]
    write_atomically(readme, f"{before}<!-- answer -->\n{answer}<!-- /answer -->{after}")
