"""Pages of HTML that need nothing else: one style for light and dark, and Markdown with its equations as MathML."""

from __future__ import annotations

import html
import re
from pathlib import Path

from math_core import LatexError, LatexToMathML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

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
