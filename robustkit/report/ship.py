"""Rows and notebook outputs that are committed."""

from __future__ import annotations

from pathlib import Path

from .. import files as files_module
from ..checks import InputError
from ..files import ROOT, figures_folder, results_folder
from ..profiles import named_cells
from ..sweep import store
from .notebooks import build_notebook, build_notebooks, execute, notebooks


def ship_rows(paths: list[Path]) -> tuple[int, list[str]]:
    """Merge local rows, or those of the files given, into results/shipped.jsonl, sorted.

    Digits are not shipped, but for the runs of Theorem 2, which asks for m >> d.
    Returns how many rows are new, and a sentence for each difference between engines (the first row is kept).
    Raises ConflictError if two rows of one engine differ: nothing is written then.
    """
    for path in paths:
        if not path.is_file():
            raise InputError(f"the file to ship is {str(path)!r}, but there is no such file")
    shipped, notes = store.read_rows(store.SHIPPED), []
    rows, small = shipped, {cell.key for cell in named_cells("theorem2", "laptop")}
    for path in paths or [store.local_path()]:
        finished = [r for r in store.read_rows(path) if r["status"] != "failed"]
        finished = [r for r in finished if r["cell"]["dataset"] in SHIPPED_DATA or r["key"] in small]
        rows, new = store.merge(rows, finished)
        notes += new
    order = ("model", "dataset", "scaling", "loss", "epochs", "init", "power", "gain", "depth", "width", "seed")
    rows.sort(key=lambda row: ([str(row["cell"][n]).zfill(8) for n in order], row.get("measure", ""), row["key"]))
    files_module.write_atomically(store.SHIPPED, "".join(store.encode(row) + "\n" for row in rows))
    return len(rows) - len(shipped), notes


SHIPPED_DATA = ("mnist", "cifar10", "cifar100")


def ship_notebooks() -> list[str]:
    """Run every notebook on the shipped rows and write the outputs into the committed .ipynb; returns what failed."""
    build_notebooks()
    for picture in figures_folder("shipped").glob("*.png"):
        picture.unlink()  # drawn anew even where only the style changed
    failed = execute("shipped")
    if not failed:
        for path in notebooks():
            build_notebook(path.with_suffix(".py"), results_folder() / "notebooks" / "shipped" / path.name)
        write_verdicts(ROOT / "README.md", figures_folder("shipped"))
    return failed


def write_verdicts(readme: Path, figures: Path) -> None:
    """Put headline verdicts and findings between their marks in the README, so that it never says anything else."""
    import pandas

    rows = pandas.read_csv(figures / "claims.csv", keep_default_na=False).head(10).itertuples()
    lines = [f"| {row.id} | {row.claim} | {row.verdict} | {row.readings} |" for row in rows]
    table = "\n".join(["| | the claim | verdict, main reading | readings |", "|---|---|---|---|", *lines, ""])
    text = readme.read_text()
    for mark, content in (("ledger", table), ("found", (figures / "found.md").read_text())):
        before, rest = text.split(f"<!-- {mark} -->\n")
        text = f"{before}<!-- {mark} -->\n{content}<!-- /{mark} -->{rest.split(f'<!-- /{mark} -->')[1]}"
    files_module.write_atomically(readme, text)
