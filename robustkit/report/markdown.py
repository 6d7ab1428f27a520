"""Markdown to HTML, with equations as MathML, which browsers draw without a script."""

from __future__ import annotations

import html
import re
from pathlib import Path

from math_core import LatexError, LatexToMathML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

TEX = LatexToMathML(fancy_error=False)


class _Renderer(IPythonRenderer):
    """Equations as MathML; links lead to pages of the report's folder, or out of the project."""

    def block_math(self, body: str) -> str:
        return _mathml(body, block=True)

    def inline_math(self, body: str) -> str:
        return _mathml(body, block=False)

    def latex_environment(self, name: str, body: str) -> str:
        return _mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if re.match(r"[a-z]+:|#", url):
            return super().link(text, url, title)
        # Of the project's files, the report has the notebooks alone.
        return super().link(text, f"{Path(url).stem}.html", title) if url.endswith(".ipynb") else text


def _mathml(tex: str, *, block: bool) -> str:
    try:
        drawn = TEX.convert_with_local_state(tex.strip(), displaystyle=block)
    except LatexError:
        return f'<code class="tex">{html.escape(tex)}</code>'  # its source can still be read
    kind = "equation" if block else "long" if len(tex) > 40 else ""
    return f'<span class="{kind}">{drawn}</span>' if kind else drawn


def to_html(source: str, *, escape: bool = True) -> str:
    """HTML of Markdown, tags in it as text unless `escape` is false; TeX that cannot be converted stays as code."""
    return MarkdownWithMath(_Renderer(escape=escape, exclude_anchor_links=True)).render(source)


def inline(text: str) -> str:
    """HTML of one line of Markdown, such as a heading."""
    numbered = re.sub(r"^(\d+)\.", r"\1\\.", text)  # "1. Width" is a heading here, not a list
    return re.sub(r"^<p>|</p>\s*$", "", to_html(numbered))


def plain(text: str) -> str:
    """A heading without the signs of TeX and Markdown, for titles and alternative texts."""
    return re.sub(r"[$\\`*{}]", "", text)
