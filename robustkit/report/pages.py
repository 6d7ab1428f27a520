"""The HTML report: a folder of plain pages, read from disk on any screen, without a script and without a network."""

from __future__ import annotations

import html
import platform
import re
from collections import Counter
from importlib import metadata
from pathlib import Path

import nbformat
import pandas
from math_core import LatexError, LatexToMathML
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from .. import files as files_module
from ..cell import dataset_info
from ..files import ROOT, figures_folder, results_folder
from ..ledger.verdicts import HEADLINES
from ..profiles import FIGURES, grid, profile_cells
from ..sweep import store
from ..training.group import commit
from ..training.remeasure import FURTHER
from . import notebooks as report

INDEX = '<a href="index.html">All figures and tables</a>'


def write_html(profile: str, failed: list[str] | tuple[str, ...] = ()) -> Path:
    """Write figures/<profile>/report/, which needs no other file: the notebooks as pages, the ledger, and the index.

    failed: the sentences of `report.execute`, which the index shows. Returns the index.
    """
    figures, copies = figures_folder(profile), results_folder() / "notebooks" / profile
    paths = [copies / path.name for path in report.notebooks() if (copies / path.name).is_file()]
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in paths}
    titles = {stem: _title(notebook) for stem, notebook in notebooks.items()}
    places = {}  # figure or table -> (notebook, cell, heading above it)
    for stem, notebook in notebooks.items():
        places |= {name: (stem, *place) for name, place in _places(notebook).items()}
        _write(figures, f"{stem}.html", page(titles[stem], _notebook(notebook, figures), _links(stem, titles)))
    if (figures / "claims.md").is_file():
        text = markdown((figures / "claims.md").read_text())
        text = re.sub(r"<h2>(\w+):", r'<h2 id="\1">\1:', _linked(text, ""))
        _write(figures, "claims.html", page("The ledger", text, INDEX))
    for picture in figures.glob("*.png"):
        for path in filter(Path.is_file, (picture, picture.with_suffix(".csv"))):
            _write(figures, path.name, path.read_bytes())
    _write(figures, "index.html", _index(profile, list(failed), titles, places))
    return figures / "report" / "index.html"


def _write(figures: Path, name: str, content: str | bytes) -> None:
    files_module.write_atomically(figures / "report" / name, content)


def _links(stem: str, titles: dict[str, str]) -> str:
    """From a notebook's page to the index, the notebook before and the one after."""
    stems = list(titles)
    at = stems.index(stem)
    near = [(arrow, i) for arrow, i in (("\u2190", at - 1), ("\u2192", at + 1)) if 0 <= i < len(stems)]
    return INDEX + "".join(f'<a href="{stems[i]}.html">{arrow} {inline(titles[stems[i]])}</a>' for arrow, i in near)


# ---------------------------------------------------------------------------------------------- notebooks


def _headings(notebook) -> list[tuple]:
    """(cell, the last heading above its end) for each cell."""
    found, heading = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lines = re.findall(r"^#+ (.+)", cell.source, re.MULTILINE)
            heading = lines[-1] if lines else heading
        found.append((cell, heading))
    return found


def _title(notebook) -> str:
    lines = [line for cell in notebook.cells for line in re.findall(r"^# (.+)", cell.source, re.MULTILINE)]
    return lines[0] if lines else "Notebook"


def _saved(source: str) -> list[str]:
    """Names of the figures and tables that a cell saves."""
    return re.findall(r'plots\.save(?:_table)?\(.*?"(\w+)", profile', source, re.DOTALL)


def _places(notebook) -> dict[str, tuple[str, str]]:
    """Figure or table -> the cell that saves it and the heading above it."""
    code = [(cell, heading) for cell, heading in _headings(notebook) if cell.cell_type == "code"]
    return {name: (cell.get("id", ""), heading) for cell, heading in code for name in _saved(cell.source)}


def _notebook(notebook, figures: Path) -> str:
    for cell, heading in _headings(notebook):
        names = _saved(cell.source)
        for output in cell.get("outputs", ()) if cell.cell_type == "code" else ():
            kinds = output.get("data", {})
            for kind in set(kinds) - {"text/plain", "text/html", "text/markdown", "image/png"}:
                del kinds[kind]  # scripts and widgets, which would ask for more
            if "image/png" in kinds:
                said = f"{plain(heading)}. Drawn by the cell above."
                output.metadata["image/png"] = {"alt": _says(figures, names[0], heading) if names else said}
    options = {"exclude_input_prompt": True, "exclude_output_prompt": True, "filters": {"markdown2html": markdown}}
    return HTMLExporter(template_name="basic", **options).from_notebook_node(notebook)[0]


def _caption(figures: Path, name: str) -> str:
    """The line below a figure, which says what it shows: the first of its numbers."""
    path = figures / f"{name}.csv"
    first = path.read_text().partition("\n")[0] if path.is_file() else ""
    return first[2:] if first.startswith("# ") else "there are no numbers beside this picture"


def _says(figures: Path, name: str, heading: str) -> str:
    """What a picture shows, for those who do not see it: the heading above it, the quantities, the line below."""
    path, drawn = figures / f"{name}.csv", []
    if path.is_file():
        table = pandas.read_csv(path, skiprows=1, dtype=str)
        drawn = table["quantity"].dropna().str.replace("_", " ").unique() if "quantity" in table else []
    about = plain(heading) or name
    about += "" if about.endswith("?") else "."
    quantities = f" Drawn: {', '.join(drawn)}." if len(drawn) else ""
    return f"{about}{quantities} {_caption(figures, name)}"


# ---------------------------------------------------------------------------------------------- the index


def _index(profile: str, failed: list[str], titles: dict, places: dict) -> str:
    counts, rows = _counts(profile)
    missing = counts["all"]["missing"]
    trainer = "laptop" if profile == "shipped" else profile
    command = f"<code>python -m robustkit run {trainer}</code>"
    said = f"{counts['all'].total() - missing} of {counts['all'].total()} trainings are done"
    said += f", {missing} are missing: {command} trains them." if missing else "."
    parts = ["<h1>Robustness in deep learning: a reproducible companion</h1>"]
    parts += [f"<p>Profile <b>{profile}</b>. {said} The line below each figure says what it shows and lacks.</p>"]
    if failed:
        lines = "".join(f"<li>{html.escape(line.replace(f'{ROOT}/', ''))}</li>" for line in failed)
        parts += [f'<h2 class="bad" id="failed">What failed</h2><ul>{lines}</ul>']
    parts += [_ledger(profile, places), _notebook_list(profile, titles)]
    parts += [_gallery(profile, titles, places), _provenance(counts, rows, command)]
    names = ["ledger", "notebooks", "figures", "provenance"]
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in names)
    return page(f"robustkit: {profile}", "\n".join(parts), links)


def _ledger(profile: str, places: dict) -> str:
    """The ledger's picture, then the headline verdicts and what was found."""
    figures, text = figures_folder(profile), '<h2 id="ledger">The ledger</h2>'
    if not (figures / "claims.csv").is_file():
        command = f"python -m robustkit report {profile} --only 06"
        return f"{text}<p>There is no ledger here yet: <code>{command}</code> writes it.</p>"
    table = pandas.read_csv(figures / "claims.csv", dtype=str, keep_default_na=False)
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in table["verdict"].value_counts().items())
    text += _figure(figures, "ledger", places) if (figures / "ledger.png").is_file() else ""
    text += f"<p>{len(table)} statements: {verdicts}. The headline claims:</p>"
    head = table[table["id"].isin(HEADLINES)][["id", "claim", "verdict", "readings"]]
    text += _table(head) if len(head) else ""
    text += markdown((figures / "found.md").read_text()) if (figures / "found.md").is_file() else ""
    if (figures / "claims.md").is_file():
        text = _linked(text, "claims.html")
        text += '<p><a href="claims.html">Every statement</a>, with criterion, evidence and the paper\'s words</p>'
    return text


def _linked(text: str, page_of_claims: str) -> str:
    """The table of verdicts with each id as a link to its claim."""
    return re.sub(r"<td>([A-Z]\d+)</td>", rf'<td><a href="{page_of_claims}#\1">\1</a></td>', text)


def _table(table: pandas.DataFrame) -> str:
    with pandas.option_context("display.max_colwidth", None):
        return table.to_html(index=False, border=0)


def _notebook_list(profile: str, titles: dict) -> str:
    text = '<h2 id="notebooks">Notebooks</h2><ul>'
    for path in report.notebooks():
        title = inline(titles.get(path.stem, path.stem))
        lacks = f"not run for this profile yet (<code>python -m robustkit report {profile}</code>)"
        link = f'<a href="{path.stem}.html">{title}</a>' if path.stem in titles else f"{title}: {lacks}"
        text += f"<li>{link}</li>"
    return f"{text}</ul>"


def _gallery(profile: str, titles: dict, places: dict) -> str:
    """Every figure and every table, in the notebooks' order; those that no notebook here draws come last."""
    figures = figures_folder(profile)
    there = {path.stem for ending in ("png", "md") for path in figures.glob(f"*.{ending}")} - {
        "claims",
        "found",
        "ledger",
    }
    others = {
        stem: [name for name, (owner, *_) in places.items() if owner == stem and name in there] for stem in titles
    }
    others[""] = sorted(there - set(places))
    text = '<h2 id="figures">Figures and tables</h2>' + ("" if there else "<p>There are none yet.</p>")
    for stem, names in others.items():
        if names:
            text += f'<h3 id="{stem}">{inline(titles[stem])}</h3>' if stem else "<h3>Others</h3>"
        for name in names:
            text += _figure(figures, name, places) if (figures / f"{name}.png").is_file() else ""
            if (figures / f"{name}.md").is_file():
                table = pandas.read_csv(figures / f"{name}.csv", dtype=str, keep_default_na=False)
                text += f"<details><summary>Table {_label(name, places)}</summary>{_table(table)}</details>"
    return text


def _label(name: str, places: dict) -> str:
    """The name of a figure or table, and the notebook's heading as a link to the cell that draws it."""
    stem, cell, heading = places.get(name, ("", "", ""))
    link = f'{name}: <a href="{stem}.html#cell-id={cell}">{inline(heading)}</a>'
    return link if stem else name


def _figure(figures: Path, name: str, places: dict) -> str:
    said = html.escape(_says(figures, name, places.get(name, ("", "", ""))[2]), quote=True)
    numbers = f' (<a href="{name}.csv">numbers</a>)' if (figures / f"{name}.csv").is_file() else ""
    picture = f'<div class="picture"><a href="{name}.png"><img src="{name}.png" alt="{said}"></a></div>'
    caption = f"{_label(name, places)}{numbers}<br>{html.escape(_caption(figures, name))}"
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


# ---------------------------------------------------------------------------------------------- provenance


def _counts(profile: str) -> tuple[dict[str, Counter], list[dict]]:
    """Trainings done, diverged, failed and missing, figure by figure and in all; and the profile's rows."""
    rows = {row["key"]: row for row in store.load_rows(local=profile != "shipped")}
    cells = {name: grid(name, profile) for name in FIGURES} | {"all": profile_cells(profile)}
    missing = {"status": "missing"}
    counts = {name: Counter(rows.get(c.key, missing)["status"] for c in found) for name, found in cells.items()}
    return counts, [rows[cell.key] for cell in cells["all"] if cell.key in rows]


def _provenance(counts: dict[str, Counter], rows: list[dict], command: str) -> str:
    names = {"ok": "done", "diverged": "diverged", "failed": "failed", "missing": "missing"}
    lines = [{"figure": name} | {word: n[status] for status, word in names.items()} for name, n in counts.items()]
    again = {name: len(store.load_rows(measure=name)) for name in FURTHER}
    engines = [row["engine"] for row in rows if row["engine"]]
    data = {name: dataset_info(name) for name in sorted({row["cell"]["dataset"] for row in rows})}
    facts = {
        "data": [
            f"{n}: {d.n_train} points, {d.n_test} test points, SHA-256 {d.sha256[:12]}" for n, d in data.items()
        ],
        "engines": _tally(f"{e['name']} on {e['device']}, {e['dtype']}" for e in engines),
        "versions": _tally(", ".join(f"{n} {v}" for n, v in row["versions"].items()) for row in rows),
        "commits": _tally(row["commit"] or "unknown" for row in rows),
        "time": [f"{sum(row['seconds'] for row in rows) / 3600:.1f} hours of training"] if rows else [],
        "trained again": [f"{n} for {name}" for name, n in again.items() if n],
    }
    told = "".join(f"<li>{name}: {html.escape('; '.join(words))}</li>" for name, words in facts.items() if words)
    libraries = ("torch", "numpy", "pandas", "matplotlib", "nbconvert")
    now = [f"python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in libraries)]
    return f"""<h2 id="provenance">Provenance</h2><p>Trainings of this profile, figure by figure; a figure may share
its trainings with another, and <i>all</i> holds the readings and controls too. {command} fills what is missing.</p>
{_table(pandas.DataFrame(lines))}{f"<p>Where these rows come from:</p><ul>{told}</ul>" if told else ""}
<p>This page was written at commit {commit() or "unknown"} with {", ".join(now)}.</p>"""


def _tally(words) -> list[str]:
    return [f"{word} ({n})" for word, n in Counter(words).most_common()]


LIGHT, DARK = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))


# Equations need a font with an OpenType MATH table; the names are those of Windows, macOS and Linux.
STYLE = f"""
:root {{ color-scheme: light dark; --text: #1c1e21; --soft: #5a5f66; --line: #d5d8dc; --box: #fafbfc; --page: #fff;
  --link: #0b57a4; --bad: #a3140f }}
* {{ box-sizing: border-box }}
body {{ font: 16px/1.55 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 62rem;
  margin: auto; padding: 0.5rem 1rem 3rem; overflow-wrap: break-word }}
nav {{ font-size: 0.9rem; display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem }}
nav, footer {{ padding: 0.5rem 0; border: solid var(--line); border-width: 0 0 1px }}
footer {{ border-width: 1px 0 0; margin-top: 2rem }}
h1, h2, h3 {{ line-height: 1.25; margin: 1.6em 0 0.5em }} h1 {{ font-size: 1.7rem }} h2 {{ font-size: 1.35rem }}
h3 {{ font-size: 1.1rem }} a {{ color: var(--link) }}
blockquote {{ margin: 1rem 0; padding: 0 1rem; border-left: 4px solid var(--line); color: var(--soft) }}
pre, code {{ font: 0.85rem/1.45 ui-monospace, Menlo, Consolas, monospace; background: var(--box) }}
pre {{ padding: 0.6rem 0.8rem; margin: 0.6rem 0; overflow-x: auto }} code {{ padding: 0.1em 0.25em }}
.output pre {{ background: none; border-left: 3px solid var(--line); border-radius: 0 }}
.scroll {{ overflow-x: auto; margin: 0.8rem 0 }}
table {{ width: max-content; border: 0; border-collapse: collapse; font-size: 0.85rem }}
th, td {{ border: 0; border-bottom: 1px solid var(--line); padding: 0.25rem 0.6rem; text-align: left;
  vertical-align: top; min-width: 3rem; max-width: 26rem; overflow-wrap: normal }}
main thead th {{ border-bottom: 2px solid var(--line); vertical-align: bottom; text-align: left !important }}
img {{ max-width: 100%; height: auto; background: #fff; border-radius: 4px }}
.picture, .output_png {{ overflow-x: auto }} .picture img, .output_png img {{ display: block }}
@media (max-width: 42rem) {{ .picture img {{ max-width: none; width: 42rem }} .output_png img {{ max-width: 60rem }}
  th, td {{ max-width: 11rem }}
  .long {{ display: inline-block; max-width: 100%; overflow-x: auto; vertical-align: middle }} }}
figure {{ margin: 1.2rem 0 2.2rem }} figcaption, .soft {{ color: var(--soft); font-size: 0.9rem }}
details {{ margin: 0.4rem 0 }} summary {{ cursor: pointer }} .bad {{ color: var(--bad) }}
math {{ font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", "DejaVu Math TeX Gyre", math }}
.equation {{ display: block; overflow-x: auto; padding: 0.4rem 0; margin: 0.6rem 0 }}
.equation math {{ width: max-content; min-width: 100% }}
.highlight {{ border: 1px solid var(--line); border-radius: 4px; margin: 0.6rem 0 }} .highlight pre {{ margin: 0 }}
{LIGHT}
@media (prefers-color-scheme: dark) {{
:root {{ --text: #e3e5e8; --soft: #a9afb6; --line: #444a52; --box: #1c2128; --page: #14171b; --link: #7db8ff;
  --bad: #ff9a90 }}
{DARK}
}}
.highlight, .highlight pre {{ background: var(--box) }}
"""


def page(title: str, body: str, links: str) -> str:
    """A whole page. Each table scrolls in a box of its own; a picture that lies elsewhere is left as its words."""
    elsewhere = re.compile(r'<img\b[^>]*\bsrc="(?:https?:)?//[^>]*>')
    body = elsewhere.sub(lambda found: "".join(re.findall(r'\balt="([^"]*)"', found[0])), body)
    body = body.replace("<table", '<div class="scroll" tabindex="0"><table').replace("</table>", "</table></div>")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(plain(title))}</title>
<style>{STYLE}</style></head>
<body><nav>{links}</nav><main>{body}</main><footer><nav>{links}</nav></footer></body></html>
"""


class _Renderer(IPythonRenderer):
    """Markdown with equations as MathML, which browsers draw by themselves, and links that stay in the folder."""

    tex = LatexToMathML(fancy_error=False)

    def math(self, body: str, block: bool) -> str:
        try:
            drawn = self.tex.convert_with_local_state(body.strip(), displaystyle=block)
        except LatexError:
            return f'<code class="tex">{html.escape(body)}</code>'  # its source can be read all the same
        kind = "equation" if block else "long" if len(body) > 40 else ""
        return f'<span class="{kind}">{drawn}</span>' if kind else drawn

    def block_math(self, body: str) -> str:
        return self.math(body, True)

    def inline_math(self, body: str) -> str:
        return self.math(body, False)

    def latex_environment(self, name: str, body: str) -> str:
        return self.math(f"\\begin{{{name}}}{body}\\end{{{name}}}", True)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if re.match(r"[a-z]+:|#", url):
            return super().link(text, url, title)
        # Of the project's files, the report has the notebooks alone.
        return super().link(text, f"{Path(url).stem}.html", title) if url.endswith(".ipynb") else text


def markdown(source: str) -> str:
    """HTML of Markdown; TeX that cannot be converted stays as code."""
    return MarkdownWithMath(_Renderer(escape=False, exclude_anchor_links=True)).render(source)


def inline(text: str) -> str:
    """One line of Markdown, such as a heading."""
    return re.sub(r"^<p>|</p>\s*$", "", markdown(re.sub(r"^(\d+)\.", r"\1\\.", text)))


def plain(text: str) -> str:
    """A heading for readers of alt texts and titles: without the signs of TeX and Markdown."""
    return re.sub(r"[$\\`*{}]", "", text)
