"""The project's address stands in pyproject.toml; badges and the notebooks' first cells are written from it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ..checks import InputError
from ..files import ROOT, write_atomically


def repository(root: Path = ROOT) -> str:
    """The address in pyproject.toml. Raises InputError if it is not of GitHub's form, which Binder and Colab need."""
    address = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", address):
        raise InputError(f"Repository in pyproject.toml is {address!r}, but must be https://github.com/OWNER/NAME")
    return address


def write(root: Path = ROOT) -> None:
    """Write the address into the badges of README and notebooks, and into the first cells, which clone from it."""
    name = repository(root).removeprefix("https://github.com/")
    before = r'(mybinder\.org/v2/gh/|colab\.research\.google\.com/github/|"--depth=1", "https://github\.com/)'
    for path in (root / "README.md", *sorted((root / "notebooks").glob("[0-9][0-9]_*.py"))):
        write_atomically(path, re.sub(rf"{before}[\w-]+/[\w.-]+", rf"\g<1>{name}", path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    from .notebooks import build_notebooks

    write()
    build_notebooks()
