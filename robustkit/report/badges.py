"""The project's address: pyproject.toml names it, and badges and the notebooks' first cells are written from it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ..checks import InputError
from ..files import ROOT, write_atomically


def repository(root: Path = ROOT) -> str:
    """The address in pyproject.toml. Raises InputError if it is not of GitHub's form, which Binder and Colab need."""
    address = tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", address):
        raise InputError(f"Repository in pyproject.toml is {address!r}, but must be https://github.com/OWNER/NAME")
    return address


def badges(address: str, notebook: str = "") -> str:
    """Binder and Colab badges in one line, for one notebook or for all."""
    name = address.removeprefix("https://github.com/")
    binder, colab = "https://mybinder.org", "https://colab.research.google.com"
    lab = f"labpath=notebooks%2F{notebook}" if notebook else "urlpath=lab/tree/notebooks"
    page = f"/blob/main/notebooks/{notebook}" if notebook else ""
    return (
        f'<a href="{binder}/v2/gh/{name}/HEAD?{lab}"><img src="{binder}/badge_logo.svg" alt="Open in Binder"></a> '
        f'<a href="{colab}/github/{name}{page}"><img src="{colab}/assets/colab-badge.svg" alt="Open in Colab"></a>'
    )


def write(root: Path = ROOT) -> None:
    """Write the address anew into the README and the sources of the notebooks, whose .ipynb are built from them."""
    address = repository(root)
    for path in (root / "README.md", *sorted((root / "notebooks").glob("[0-9][0-9]_*.py"))):
        line = badges(address) if path.suffix == ".md" else "# " + badges(address, f"{path.stem}.ipynb")
        text = re.sub(r'^(# )?<a href="https://mybinder\.org/.*$', line, path.read_text(), flags=re.MULTILINE)
        write_atomically(path, re.sub(r'(?<="--depth=1", )"[^"]+"', f'"{address}"', text))


if __name__ == "__main__":
    from .notebooks import build_notebooks

    write()
    build_notebooks()
