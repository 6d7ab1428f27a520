"""The HTML report: one folder that opens from disk, says what it holds and lacks, and asks nothing of a network."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pandas
import pytest

from robustkit.__main__ import main
from robustkit.files import ROOT, figures_folder, results_folder
from robustkit.ledger.claims import HEADLINES, RULES
from robustkit.profiles import profile_cells
from robustkit.report import notebooks as report
from robustkit.report import pages
from robustkit.report.markdown import to_html
from robustkit.sweep import store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FIGURES = ROOT / "figures" / "shipped"
NOTEBOOKS = report.notebooks()


class Page(HTMLParser):
    """What a browser would read of a page: ids, links and sources, pictures, and the words outside of code."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.sources, self.images, self.tags = set(), [], [], [], set()
        self.words, self.inside = "", []
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.tags.add(tag)
        self.ids |= {named["id"]} if "id" in named else set()
        self.links += [named["href"]] if tag == "a" and "href" in named else []
        self.sources += [named[name] for name in ("src", "srcset", "data", "poster", "action") if name in named]
        self.sources += [named["href"]] if tag != "a" and "href" in named else []
        self.images += [named] if tag == "img" else []
        self.inside += [tag] if tag in ("pre", "code", "math", "style") else []

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        self.words += "" if self.inside else data


def read(folder):
    return {path.name: Page(path) for path in sorted(folder.glob("*.html"))}


def dead_links(folder):
    """Links and sources of all pages that lead to no file, or to no place of a page, of this folder."""
    found, dead = read(folder), []
    for name, page in found.items():
        for link in [*page.links, *page.sources]:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = unquote(parts.path) or name
            there = (folder / target).is_file() and ".." not in target and not target.startswith("/")
            if not there or (parts.fragment and unquote(parts.fragment) not in found[target].ids):
                dead.append((name, link))
    return dead


def asked_for(folder):
    """What a browser would fetch from elsewhere, or run, to show the pages."""
    asked = []
    for name, page in read(folder).items():
        asked += [(name, source) for source in page.sources if urlsplit(source).scheme not in ("", "data")]
        asked += [(name, tag) for tag in page.tags & {"script", "link", "iframe", "object", "embed", "base"}]
        asked += [(name, rule) for rule in re.findall(r"@import[^;]*|url\((?!['\"]?data:)[^)]*\)", page.text)]
    return asked


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The report of the committed notebooks, figures and rows, moved away from all that it was made of."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as here:
        here.setenv("ROBUSTKIT_RESULTS", str(folder / "results"))
        here.setenv("ROBUSTKIT_FIGURES", str(folder / "figures"))
        here.setattr(store, "SHIPPED", ROOT / "results" / "shipped.jsonl")
        copies = results_folder() / "notebooks" / "shipped"
        copies.mkdir(parents=True)
        for path in NOTEBOOKS:
            shutil.copy(path, copies)
        shutil.copytree(FIGURES, figures_folder("shipped"), ignore=shutil.ignore_patterns("report"))
        made = pages.write_html("shipped")
        assert made.name == "index.html"
        moved = shutil.move(made.parent, tmp_path_factory.mktemp("mailed") / "report")
    shutil.rmtree(folder)
    return moved


def executed(profile, *cells, number=0):
    """An executed copy of one notebook, made of these cells."""
    path = results_folder() / "notebooks" / profile / NOTEBOOKS[number].name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return path.with_suffix(".html").name


def markdown(text):
    return nbformat.v4.new_markdown_cell(text)


def code(source, *outputs):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), execution_count=1)


# ---------------------------------------------------------------------------------------------- one folder


def test_every_link_leads_to_a_file_or_place_of_the_folder(shipped):
    assert dead_links(shipped) == []


def test_no_page_fetches_or_runs_anything(shipped):
    assert asked_for(shipped) == []


def test_a_page_that_would_is_found(tmp_path):
    lines = ['<img src="https://example.org/a.png">', "<script>1</script>", "<style>@import 'b.css';</style>"]
    (tmp_path / "a.html").write_text("\n".join([*lines, '<a href="b.html">', '<a href="#nowhere">', '<img src="c">']))
    assert len(asked_for(tmp_path)) == 3
    assert {link for _, link in dead_links(tmp_path)} == {"b.html", "#nowhere", "c"}


def test_every_picture_is_described_by_what_it_shows_and_lacks(shipped):
    for page in read(shipped).values():
        for image in page.images:
            assert len(image.get("alt", "")) > 15, image
    described = {image["src"]: image["alt"] for image in read(shipped)["index.html"].images}
    for name, alt in described.items():
        said = (shipped / name).with_suffix(".csv").read_text().splitlines()[0]
        assert alt.endswith(said.removeprefix("# ")), name
    assert "five depths, He initialisation. Drawn: stability, train loss." in described["N4a.png"]


# ---------------------------------------------------------------------------------------------- what the index holds


def test_the_answer_comes_first_then_the_figures_then_the_ledger(shipped):
    """One read a list of ten, with every interval, behind a picture of forty lines."""
    index = read(shipped)["index.html"]
    table = pandas.read_csv(FIGURES / "claims.csv", keep_default_na=False).set_index("id")
    answer, figures, ledger = re.split(r'<h2 id="(?:figures|ledger)">', index.text)
    assert all(image.get("loading") == "lazy" and int(image["height"]) > 100 for image in index.images)
    assert "<img" not in answer and 'src="ledger.png"' in ledger
    assert (
        answer.count("<li>") == 5
        and "Width (the good)" in answer
        and "Under Theorem 1's hypotheses" in html.unescape(answer)
    )
    part = ledger.partition("<h2")[0]
    assert re.findall(r'claims.html#(\w+)">\1</a>', part) == list(HEADLINES)
    for name, line in zip(HEADLINES, part.split("<li>")[1:], strict=True):
        assert html.unescape(line).split("</a> ")[1].startswith(table.loc[name, "claim"]), name
        assert f"<b>{table.loc[name, 'verdict']}</b>" in line and len(line) > 150, name


def test_the_ledger_is_a_list_of_lines_that_open(shipped):
    """The page was 39 000 pixels long, 95 000 on a phone, and began with the history of its rules."""
    page = read(shipped)["claims.html"]
    table = pandas.read_csv(FIGURES / "claims.csv", keep_default_na=False)
    lines = page.text.split("<details")[1:]
    assert [re.search(r'<div id="(\w+)">', line)[1] for line in lines] == list(table["id"])
    for line, row in zip(lines, table.itertuples(), strict=True):
        summary, _, inside = html.unescape(line).partition("</summary>")
        assert row.claim in summary and row.verdict in summary
        assert all(text in inside for text in (row.quote, row.criterion, row.hypotheses))
        assert inside.count("<li>") == len(row.evidence.split("\n"))
    assert page.text.index(html.escape(RULES[:40])) > page.text.rindex("</details>")


def test_tables_of_the_report_are_read_as_their_markdown_is(shipped):
    index = read(shipped)["index.html"].text
    table = index.partition("Table N_initial")[2].partition("</table>")[0]
    assert "<td>LeCun</td>" in table and "<td>lecun</td>" not in table
    hypotheses = index.partition("Table hypotheses")[2].partition("</table>")[0]
    assert hypotheses.count("<th>") < 25 and hypotheses.count("<tr") > 35


def test_every_figure_table_and_notebook_is_there(shipped):
    index = read(shipped)["index.html"]
    pictures = {image["src"] for image in index.images}
    assert pictures == {path.name for path in FIGURES.glob("*.png")}
    tables = set(re.findall(r"<summary>Table (\w+)", index.text))
    assert tables == {path.stem for path in FIGURES.glob("*.md")} - {"claims", "found", "answer"}
    assert {f"{path.stem}.html" for path in NOTEBOOKS} <= set(index.links)
    assert re.search(r'<a href="02_width.html#cell-id=[\w-]+">Figure 4\(a\)', index.text)
    numbers = pandas.read_csv(FIGURES / "W7_slopes.csv", dtype=str).iloc[0]
    assert all(f"<td>{number}</td>" in index.text for number in numbers)


def test_the_counts_are_those_of_status_and_the_command_fills_the_gaps(shipped, capsys, monkeypatch):
    monkeypatch.setattr(store, "SHIPPED", ROOT / "results" / "shipped.jsonl")
    assert main(["status", "shipped"]) == 0
    index = read(shipped)["index.html"].text
    lines = [line.split(maxsplit=6) for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(lines) > 20
    for *counts, running, missing, shared in [[*line, ""][:7] for line in lines]:
        assert running == "0"
        assert re.search(r"\s*".join(f"<td>{word}</td>" for word in (*counts, missing, shared)), index), counts
    assert f"{missing} are missing: <code>python -m robustkit run laptop</code>" in index
    for row in store.read_rows(store.SHIPPED)[:20]:
        assert row["commit"] in index and row["versions"]["torch"] in index and row["engine"]["name"] in index


def test_a_profile_with_nothing_trained_says_what_is_missing():
    index = read(pages.write_html("smoke").parent)["index.html"]
    cells = len(profile_cells("smoke"))
    assert f"0 of {cells} runs are done, {cells} are missing: <code>python -m robustkit run smoke" in index.text
    assert "There is no ledger here yet" in index.text and "There are none yet." in index.text
    assert index.text.count("not run for this profile yet") == len(NOTEBOOKS)
    assert dead_links(figures_folder("smoke") / "report") == [] and not index.images


def test_a_ledger_without_its_picture_and_figures_without_notebooks_are_shown():
    figures = figures_folder("laptop")
    figures.mkdir(parents=True)
    for name in ("claims.csv", "N4a.png", "N4a.csv", "W7_slopes.md", "W7_slopes.csv"):
        shutil.copy(FIGURES / name, figures)
    index = read(pages.write_html("laptop").parent)["index.html"]
    assert "Others" in index.text and [image["src"] for image in index.images] == ["N4a.png"]
    assert "The headline claims" in index.text
    assert dead_links(figures / "report") == []


def test_a_failed_notebook_is_said_on_the_index_and_shows_how_far_it_came():
    output = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=["\x1b[0;31mValueError: no"])
    name = executed("smoke", markdown("# 0. A title"), code("1 / <b>", output))
    failed = [f"{NOTEBOOKS[0].stem}: ValueError: width is <script> (in {ROOT}/results/local/a.ipynb)"]
    found = read(pages.write_html("smoke", failed).parent)
    assert "What failed" in found["index.html"].text
    assert "width is &lt;script&gt; (in results/local/a.ipynb)" in found["index.html"].text
    assert "ValueError: no" in found[name].text and "script" not in found["index.html"].tags
    assert "0. A title" in found["index.html"].words


def test_words_from_rows_are_text_wherever_a_page_shows_them():
    tag, figures = "<script>alert('x')</script>", figures_folder("smoke")
    figures.mkdir(parents=True)
    (figures / "N4a.png").write_bytes(b"")
    (figures / "N4a.csv").write_text(f"# scaling {tag}\nquantity\n{tag}\n")
    (figures / "W7_slopes.csv").write_text(f"scaling\n{tag}\n")
    (figures / "claims.csv").write_text(f"id,claim,verdict,readings\n{HEADLINES[0]},a {tag},{tag},scaling {tag}\n")
    (figures / "W7_slopes.md").write_text(f"{tag}\n")
    (figures / "found.md").write_text(f"- **{HEADLINES[0]}** Scaling {tag}. *Partly*; readings {tag}.\n")
    (figures / "answer.md").write_text(f"- **Width** {tag} (*{tag}*)\n\n{tag}\n")
    cell = profile_cells("smoke")[0]
    words = {"commit": tag, "versions": {"torch": tag}, "engine": {"name": tag, "device": tag, "dtype": tag}}
    row = {"key": cell.key, "status": "ok", "cell": dataclasses.asdict(cell), "seconds": 1.0}
    row["measures"] = {"stability": 0.5}
    store.append(row | words, store.local_path())
    output = nbformat.v4.new_output("display_data", {"text/markdown": tag, "text/plain": tag})
    figure = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": tag})
    name = executed("smoke", markdown("# 0. A title"), code('plots.save(figure, "N4a", where)', output, figure))
    found = read(pages.write_html("smoke", [tag]).parent)
    assert not any("script" in page.tags for page in found.values())
    index = found["index.html"]
    assert index.text.count("&lt;script&gt;") >= 15
    assert index.images[0]["alt"] == found[name].images[0]["alt"] == f"0. A title. Drawn: {tag}. scaling {tag}"
    assert found["claims.html"].text.count("&lt;script&gt;") >= 3


def test_no_page_may_run_a_script_even_one_that_came_in(shipped):
    """Words of a forged row became 28 scripts in the report; now a page that held one would not run it."""
    for name, page in read(shipped).items():
        (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy"\s+content="([^"]*)"', page.text)
        assert policy.startswith("default-src 'none';") and "script" not in policy, name


def test_a_browser_runs_no_script_of_a_page(tmp_path):
    if CHROMIUM is None:
        pytest.skip("no Chromium here; Debian's package is chromium")
    script = "<script>document.title = 'it ran'</script><img src=x onerror=\"document.title = 'it ran'\">"
    name = executed("smoke", markdown(f"# 0. A title\n\n{script}"))
    page = pages.write_html("smoke").parent / name
    assert "<script>" in page.read_text()
    for policy, title in ((True, "0. A title"), (False, "it ran")):
        (tmp_path / name).write_text(page.read_text() if policy else page.read_text().replace("Security", "No"))
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'user'}", (tmp_path / name).as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert f"<title>{title}</title>" in done.stdout


def test_the_parameters_of_a_page_are_those_it_was_made_with_in_one_cell():
    """A stray cell of parameters followed the one with the defaults."""
    own = code('profile = "shipped"  # type: str  # the rows\nseeds = None  # type: list|None\nwidth = 64')
    given = code('# Parameters\nprofile = "smoke"\nseeds = [0, 1]\n')
    own.metadata["tags"], given.metadata["tags"] = ["parameters"], ["injected-parameters"]
    name = executed("smoke", markdown("# 0. A title"), own, given, code("print(1)"))
    page = read(pages.write_html("smoke").parent)[name]
    shown = html.unescape(re.sub("<[^>]*>", "", page.text))
    assert 'profile = "smoke"  # type: str  # the rows\nseeds = [0, 1]  # type: list|None\nwidth = 64' in shown
    assert "# Parameters" not in shown and shown.count("profile =") == 1


def test_a_very_long_table_of_a_notebook_is_folded(shipped):
    """The notebook of the ledger ends with all of it: its page was 54 000 pixels long."""
    page = read(shipped)[f"{NOTEBOOKS[-1].stem}.html"].text
    assert page.count("<details>") == 1 and "<summary>The paper's statements" in html.unescape(page)


def test_writing_it_twice_gives_the_same_bytes():
    executed("smoke", markdown("# 0. A title $x^2$"), code("print(1)"))
    folder = pages.write_html("smoke").parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    pages.write_html("smoke")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()} and len(before) == 2


# ---------------------------------------------------------------------------------------------- notebooks as pages


def test_no_equation_of_the_notebooks_is_left_as_tex(shipped):
    for name, page in read(shipped).items():
        assert 'class="tex"' not in page.text, name
        assert not re.findall(r"\$[^$]+\$|\\[a-z]+", page.words), name
    equations = {path.stem: path.read_text().count("<math") for path in shipped.glob("*.html")}
    assert all(equations[path.stem] > 5 for path in NOTEBOOKS)


@pytest.mark.parametrize(
    ("tex", "drawn"),
    [
        (r"a \lesssim b", ["<mo>≲</mo>"]),
        (r"\boldsymbol{\beta}", ["𝜷"]),
        (r"\mathbb{E} \mathcal{P}", ["𝔼", "𝒫"]),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", ["<mtable", "(</mo>", "4</mn>"]),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", ["</mtr><mtr>", "<mi>d</mi>"]),
        (r"\begin{equation} a = b \tag{3} \end{equation}", ["(3)"]),
        (r"\sqrt{\frac{n}{m}} \hat{x}_2", ["<msqrt><mfrac><mi>n</mi><mi>m</mi></mfrac></msqrt>", "<mover", "<msub>"]),
    ],
)
def test_tex_becomes_mathml(tex, drawn):
    for sign, display in (("$", False), ("$$", True)):
        found = to_html(f"so {sign}{tex}{sign} holds")
        assert found.count("<math") == found.count("</math>") == 1, found
        assert ('display="block"' in found) == display
        assert all(part in found for part in drawn), found
        assert "\\" not in found and "$" not in found


def test_a_bare_environment_is_an_equation_too():
    assert 'display="block"' in to_html("\\begin{align} a &= b \\\\ c &= d \\end{align}")


def test_tex_that_cannot_be_converted_can_still_be_read():
    assert '<code class="tex">\\nosuch{x} &lt; 1</code>' in to_html(r"so $\nosuch{x} < 1$")
    assert to_html("`a $x$ b`") == "<p><code>a $x$ b</code></p>\n"


def test_links_between_notebooks_lead_to_pages_and_those_to_the_project_are_words():
    text = "[two](02_width.ipynb), [readme](../README.md), [paper](https://arxiv.org/abs/2209.07263), [up](#a)"
    found = to_html(text)
    assert re.findall('href="([^"]*)"', found) == ["02_width.html", "https://arxiv.org/abs/2209.07263", "#a"]
    assert "readme" in found


def test_a_picture_that_lies_elsewhere_is_left_as_its_words():
    badge = '<a href="https://example.org"><img src="https://example.org/badge.svg" alt="Open there"></a>'
    name = executed("smoke", markdown(f"# 0. A title\n\n{badge} ![shown there](//example.org/a.png)"))
    folder = pages.write_html("smoke").parent
    assert asked_for(folder) == []
    assert '<a href="https://example.org">Open there</a> shown there' in read(folder)[name].text


def test_scripts_and_widgets_that_a_cell_printed_are_left_out():
    kinds = {
        "application/javascript": "alert(1)",
        "application/vnd.jupyter.widget-view+json": {"model_id": "a"},
        "text/plain": "the words instead",
    }
    output = nbformat.v4.new_output("display_data", kinds)
    name = executed("smoke", markdown("# 0. A title"), code("show()", output))
    folder = pages.write_html("smoke").parent
    assert asked_for(folder) == []
    assert "the words instead" in read(folder)[name].text and "alert" not in read(folder)[name].text


def test_a_picture_without_a_name_is_described_by_the_heading_above_it():
    output = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    name = executed("smoke", markdown("# 0. A title\n## The bound in $m$"), code("sliders()", output))
    (image,) = read(pages.write_html("smoke").parent)[name].images
    assert image["alt"] == "The bound in m. Drawn by the cell above."


# ---------------------------------------------------------------------------------------------- in a real browser

# Put into a copy of each page: a policy that blocks and reports all that is not in the folder, and measurements.
PROBE = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src file: data:;
style-src 'unsafe-inline'; script-src 'unsafe-inline'"><script>
const found = [];
document.addEventListener("securitypolicyviolation", event => found.push(`asks for ${event.blockedURI}`));
addEventListener("load", () => {
  for (const box of document.querySelectorAll("details")) box.open = true;
  const wide = document.documentElement.scrollWidth, all = name => [...document.querySelectorAll(name)];
  if (wide > innerWidth) found.push(`is ${wide} wide in ${innerWidth}`);
  for (const image of document.images) if (!image.naturalWidth) found.push(`broken ${image.src.slice(0, 80)}`);
  for (const math of all("math")) {
    const box = math.getBoundingClientRect();
    if (!(box.width > 0 && box.height > 0)) found.push(`an empty equation ${math.outerHTML}`);
  }
  for (const {name} of performance.getEntriesByType("resource"))
    if (!/^(file|data):/.test(name)) found.push(`asks for ${name}`);
  const light = text => {
    const [r, g, b, alpha] = [...text.match(/[\\d.]+/g).map(Number), 1];
    const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v > 0.04 ? ((v + 0.055) / 1.055) ** 2.4 : v / 12.92);
    return alpha ? 0.2126 * x + 0.7152 * y + 0.0722 * z : null;
  };
  const behind = item => item ? light(getComputedStyle(item).backgroundColor) ?? behind(item.parentElement) : 1;
  const faint = {};
  for (const item of all("main *, nav *")) {
    if (![...item.childNodes].some(node => node.nodeType == 3 && node.data.trim())) continue;
    const [low, high] = [light(getComputedStyle(item).color), behind(item)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) faint[item.className || item.tagName] = `${ratio.toFixed(2)} ${item.textContent.slice(0, 20)}`;
  }
  for (const [name, ratio] of Object.entries(faint)) found.push(`faint ${name} ${ratio}`);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  parent.postMessage({dark, page: document.title, width: innerWidth, equations: all("math").length, found}, "*");
});</script>"""
FRAMES = """<!doctype html><title>probe</title><pre id="told"></pre><script>
const told = [];
addEventListener("message", event => {
  told.push(event.data);
  document.getElementById("told").textContent = JSON.stringify(told);
});</script>"""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
    *("--virtual-time-budget=20000", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"),
)


def in_a_browser(folder, scratch, *, widths=(390,), dark=False):
    """What Chromium finds wrong in each page of a folder, in frames of these widths; and what its console says."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here; Debian's package is chromium")
    copy = shutil.copytree(folder, scratch / "copy")
    for path in copy.glob("*.html"):
        path.write_text(path.read_text().replace("<head>", f"<head>{PROBE}", 1))
    frames = [
        f'<iframe src="copy/{path.name}" style="width: {width}px; height: 800px; border: 0"></iframe>'
        for path in sorted(copy.glob("*.html"))
        for width in widths
    ]
    (scratch / "frames.html").write_text(FRAMES + "".join(frames))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [CHROMIUM, *FLAGS, scheme, f"--user-data-dir={scratch / 'user'}", (scratch / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stderr
    text = told[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    found = json.loads(text) if text else []
    assert len(found) == len(frames), done.stderr
    return found, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_draws_every_page_without_complaint_on_a_phone_and_on_a_screen(shipped, tmp_path, dark):
    found, console = in_a_browser(shipped, tmp_path, widths=(390, 1300), dark=dark)
    assert {(page["width"], page["dark"]) for page in found} == {(390, dark), (1300, dark)}
    assert [(page["page"], page["width"], page["found"]) for page in found if page["found"]] == []
    assert console == []
    assert sum(page["equations"] for page in found) > 500


def test_a_page_with_faults_is_found_out(tmp_path):
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    faults = [
        '<div style="width: 900px">wide</div>',
        '<img src="https://example.org/a.png">',
        '<img src="none.png">',
        "<math></math>",
        '<p style="color: #ccc">faint</p>',
    ]
    (wrong / "a.html").write_text(f"<!doctype html><html><head></head><body><main>{''.join(faults)}</main>")
    (page,), console = in_a_browser(wrong, tmp_path)
    told = "\n".join(page["found"])
    for word in ("wide in 390", "asks for https://example.org", "broken file:", "an empty equation", "faint P"):
        assert word in told, told
    assert console
