"""The project's address, once it has one: badges and the notebooks' first cells are written from pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ..checks import InputError
from ..files import ROOT, write_atomically

BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"


def repository(root: Path = ROOT) -> str:
    """The address in pyproject.toml, "" without one.

    Raises InputError if it is not of GitHub's form, which Binder and Colab need.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "")
    if address and not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", address):
        raise InputError(f"Repository in pyproject.toml is {address!r}, but must be https://github.com/OWNER/NAME")
    return address


def write(root: Path = ROOT) -> None:
    """Write the badges below the titles of README and notebooks, and the address into the notebooks' first cells."""
    address = repository(root)
    name = address.removeprefix("https://github.com/")
    for path in (root / "README.md", *sorted((root / "notebooks").glob("[0-9][0-9]_*.py"))):
        text, sign = path.read_text(encoding="utf-8"), "" if path.suffix == ".md" else "# "
        text = re.sub(rf'{sign}<a href="{BINDER}[^\n]*\n{sign.strip()}\n', "", text)
        if address:
            at = f"notebooks/{path.stem}.ipynb"
            binder = "urlpath=lab/tree/notebooks" if not sign else f"labpath={at.replace('/', '%2F')}"
            links = [(f"{BINDER}/v2/gh/{name}/HEAD?{binder}", f"{BINDER}/badge_logo.svg", "Binder")]
            colab = f"{COLAB}/github/{name}" + (f"/blob/main/{at}" if sign else "")
            links.append((colab, f"{COLAB}/assets/colab-badge.svg", "Colab"))
            line = " ".join(
                f'<a href="{to}"><img src="{icon}" alt="Open in {where}"></a>' for to, icon, where in links
            )
            title = f"{sign}# "
            head, rest = text.split(f"\n{sign.strip()}\n", 1)  # the title ends at the first empty line
            assert head.rpartition("\n")[2].startswith(title)
            text = f"{head}\n{sign.strip()}\n{sign}{line}\n{sign.strip()}\n{rest}"
        text = re.sub(r'^address, tag = "[^"]*"', f'address, tag = "{address}"', text, flags=re.MULTILINE)
        write_atomically(path, text)


if __name__ == "__main__":
    from .notebooks import build_notebooks

    write()
    build_notebooks()
