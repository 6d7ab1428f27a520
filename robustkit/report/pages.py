"""The HTML report: a folder of plain pages, read from disk on any screen, without a script and without a network."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import nbformat
import pandas
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from ..datasets import dataset_info
from ..files import ROOT, figures_folder, results_folder, write_atomically
from ..ledger.claims import HEADLINES, LEAD, RULES
from ..ledger.rows import readable
from ..ledger.verdicts import LEDGER_COLUMNS
from ..profiles import profile_cells
from ..sweep import store
from ..training.group import commit
from ..training.remeasure import FURTHER
from . import markdown
from .notebooks import notebooks
from .progress import count_runs

INDEX = ("index.html", "All figures and tables")
LONG = 50_000  # characters of a page that is folded
LIBRARIES = ("torch", "numpy", "pandas", "matplotlib", "nbconvert")


def write_html(profile: str, failed: Iterable[str] = (), *, where: str | None = None) -> Path:
    """Write figures/<profile>/report/, which needs no other file: the notebooks as pages, the ledger, and the index.

    failed: the sentences of `notebooks.execute`, which the index shows. where: the folder of figures/, if it is not
    the profile's. Returns the index.
    """
    figures, copies = figures_folder(where or profile), results_folder() / "notebooks" / profile
    paths = [copies / path.name for path in notebooks() if (copies / path.name).is_file()]
    executed = {path.stem: _as_run(nbformat.read(path, as_version=4)) for path in paths}
    titles = {stem: _title(notebook) for stem, notebook in executed.items()}
    places = {  # figure or table -> where it is saved
        name: {"notebook": stem, "cell": cell.get("id", ""), "heading": heading}
        for stem, notebook in executed.items()
        for cell, heading in _headings(notebook)
        for name in _saved(cell)
    }

    def write(name: str, template: str = "page.html", **values) -> None:
        page = TEMPLATES.get_template(template).render(values)
        write_atomically(figures / "report" / name, _self_contained(page))

    stems = list(executed)
    for at, (stem, notebook) in enumerate(executed.items()):
        links = [(f"{s}.html", f"\u2190 {titles[s]}") for s in stems[max(at - 1, 0) : at]]
        links += [(f"{s}.html", f"\u2192 {titles[s]}") for s in stems[at + 1 : at + 2]]
        write(f"{stem}.html", title=titles[stem], body=_notebook_html(notebook, figures), links=[INDEX, *links])
    results = _results(figures, places)
    if results["claims"] is not None:
        values = {"claims": results["claims"], "headlines": HEADLINES, "lead": LEAD, "rules": RULES}
        write("claims.html", "claims.html", title="The ledger", links=[INDEX], **values)
    for picture in figures.glob("*.png"):
        for path in filter(Path.is_file, (picture, picture.with_suffix(".csv"))):
            write_atomically(figures / "report" / path.name, path.read_bytes())
    values = {"title": f"robustkit: {profile}", "profile": profile, "titles": titles, "places": places}
    values["failed"] = [sentence.replace(f"{ROOT}/", "") for sentence in failed]
    write("index.html", "index.html", **values, **results, **_provenance(profile))
    return figures / "report" / "index.html"


# ---------------------------------------------------------------------------------------------- notebooks


def _as_run(notebook):
    """The notebook with the values that papermill gave in place of the defaults, and not in a cell behind them."""
    tagged = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", ())}
    if "injected-parameters" in tagged:
        given, own = tagged["injected-parameters"], tagged["parameters"]
        for name, value in re.findall(r"^(\w+) = (.*)$", given.source, re.MULTILINE):
            assignment = re.compile(rf"^{name} = .*?(?=  #|$)", re.MULTILINE)
            own.source = assignment.sub(lambda _, line=f"{name} = {value}": line, own.source)
        notebook.cells.remove(given)
    return notebook


def _headings(notebook) -> list[tuple]:
    """(cell, the last heading above its end) for each cell."""
    found, heading = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)", cell.source, re.MULTILINE) or [heading])[-1]
        found.append((cell, heading))
    return found


def _title(notebook) -> str:
    sources = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return (re.findall(r"^# (.+)", sources, re.MULTILINE) or ["Notebook"])[0]


def _saved(cell) -> list[str]:
    """Names of the figures and tables that a cell saves."""
    return re.findall(r'plots\.save(?:_table)?\(.*?"(\w+)", where', cell.source, re.DOTALL)


def _notebook_html(notebook, figures: Path) -> str:
    for cell, heading in _headings(notebook):
        names = _saved(cell)
        for output in cell.get("outputs", ()):
            kinds = output.get("data", {})
            for kind in set(kinds) - {"text/plain", "text/html", "text/markdown", "image/png"}:
                del kinds[kind]  # scripts and widgets, which would ask for more
            if "text/markdown" in kinds:  # made of rows: unlike a cell's own Markdown, it has no tags
                kinds["text/html"] = _folded(markdown.to_html(kinds.pop("text/markdown")))
            if "image/png" in kinds:
                said = f"{markdown.plain(heading)}. Drawn by the cell above."
                output.metadata["image/png"] = {"alt": _picture(figures, names[0], heading)["alt"] if names else said}
    filters = {"markdown2html": lambda source: markdown.to_html(source, escape=False)}
    options = {"exclude_input_prompt": True, "exclude_output_prompt": True, "filters": filters}
    return HTMLExporter(template_name="basic", **options).from_notebook_node(notebook)[0]


def _folded(page: str) -> str:
    """What is longer than a few screens is opened by a click on its title."""
    title = re.match(r"<h\d>(.*?)</h\d>", page)
    if title is None or len(page) < LONG:
        return page
    return f"<details><summary>{title[1]}</summary>{page[title.end() :]}</details>"


def _picture(figures: Path, name: str, heading: str) -> dict:
    """A figure's size, and its alternative text: heading, quantities, and caption, the first line of its numbers."""
    path, caption, drawn = figures / f"{name}.csv", "there are no numbers beside this picture", ""
    if path.is_file():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        caption = first[2:] if first.startswith("# ") else caption
        table = pandas.read_csv(path, skiprows=1, dtype=str)
        if "quantity" in table and table["quantity"].notna().any():
            drawn = f" Drawn: {', '.join(table['quantity'].dropna().str.replace('_', ' ').unique())}."
    about = markdown.plain(heading) or name
    alt = f"{about}{'' if about.endswith('?') else '.'}{drawn} {caption}"
    head = (figures / f"{name}.png").read_bytes()[16:24] if (figures / f"{name}.png").is_file() else b""
    width, height = (int.from_bytes(head[at : at + 4]) for at in (0, 4))  # of a PNG
    return {"alt": alt, "numbers": path.is_file(), "width": width, "height": height}


# ---------------------------------------------------------------------------------------------- the index


def _results(figures: Path, places: dict[str, dict]) -> dict:
    """The ledger, and every figure and table in the notebooks' order; those that no notebook here saves come last."""

    def read(name: str) -> pandas.DataFrame:
        return pandas.read_csv(figures / f"{name}.csv", dtype=str, keep_default_na=False)

    pictures, tables, numbers = ({path.stem for path in figures.glob(f"*.{end}")} for end in ("png", "md", "csv"))
    shown, gallery = (pictures | tables) - {"ledger", "claims", "found", "answer"}, {}
    for name in [*(name for name in places if name in shown), *sorted(shown - places.keys())]:
        gallery.setdefault(places[name]["notebook"] if name in places else "others", []).append(name)
    # As sentences.found writes them, without the verdict, which stands in the ledger.
    said = re.compile(r"^- \*\*(\w+)\*\* (.*?)(?: \*[^*]+\*[^*]*)?$", re.MULTILINE)
    claims = read("claims").reindex(columns=LEDGER_COLUMNS, fill_value="") if "claims" in numbers else None
    found, answer = (
        (figures / f"{name}.md").read_text(encoding="utf-8") if name in tables else "" for name in ("found", "answer")
    )
    return {
        "claims": claims,
        "headlines": HEADLINES,
        "answer": markdown.to_html(answer),
        "sentences": dict(said.findall(found)),
        "notebooks": [path.stem for path in notebooks()],
        "gallery": gallery,
        "pictures": {name: _picture(figures, name, places.get(name, {}).get("heading", "")) for name in pictures},
        "tables": {name: readable(read(name)) for name in tables & shown},
    }


def _provenance(profile: str) -> dict:
    """Runs done and missing, what the rows were trained with, and what this page was written with."""
    rows = {row["key"]: row for row in store.load_rows(local=profile != "shipped")}
    counts = count_runs(profile, {key: row["status"] for key, row in rows.items()}).drop(columns="running")
    cells = profile_cells(profile)
    rows = [rows[cell.key] for cell in cells if cell.key in rows]
    engines = [row["engine"] for row in rows if row["engine"]]
    data = {name: dataset_info(name) for name in sorted({row["cell"]["dataset"] for row in rows})}
    again = {name: len(store.load_rows(measure=name)) for name in FURTHER}
    facts = {
        "data": [
            f"{n}: {d.n_train} training, {d.n_test} test points, SHA-256 {d.sha256[:12]}" for n, d in data.items()
        ],
        "engines": _tally(f"{e['name']} on {e['device']}, {e['dtype']}" for e in engines),
        "versions": _tally(", ".join(f"{name} {v}" for name, v in row["versions"].items()) for row in rows),
        "commits": _tally(row["commit"] or "unknown" for row in rows),
        "time": [f"{sum(row['seconds'] for row in rows) / 3600:.1f} hours of training"] if rows else [],
        "trained again": [f"{n} for {name}" for name, n in again.items() if n],
    }
    return {
        "counts": counts,
        "total": len(cells),
        "missing": len(cells) - len(rows),
        "facts": {name: words for name, words in facts.items() if words},
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES},
    }


def _tally(words: Iterable[str]) -> list[str]:
    return [f"{word} ({n})" for word, n in Counter(words).most_common()]


# ---------------------------------------------------------------------------------------------- templates


def _table(rows: pandas.DataFrame) -> str:
    with pandas.option_context("display.max_colwidth", None):
        return rows.to_html(index=False, border=0)


def _self_contained(page: str) -> str:
    """A picture that lies elsewhere becomes its words; each table scrolls in a box of its own."""
    elsewhere = re.compile(r'<img\b[^>]*\bsrc="(?:https?:)?//[^>]*>')
    page = elsewhere.sub(lambda tag: "".join(re.findall(r'\balt="([^"]*)"', tag[0])), page)
    return page.replace("<table", '<div class="scroll" tabindex="0"><table').replace("</table>", "</table></div>")


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"inline": markdown.inline, "plain": markdown.plain, "table": _table}
TEMPLATES.globals["highlighting"] = lambda style: HtmlFormatter(style=style).get_style_defs(".highlight")
