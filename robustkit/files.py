"""The folders of datasets, rows and figures, and files that are written whole."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent.parent
INFINITE_WIDTH = ROOT / "results" / "infinite_width.csv"  # P in that limit, by benchmarks/infinite_width.py
FOLDERS = {"ROBUSTKIT_DATA": "data", "ROBUSTKIT_RESULTS": "results/local", "ROBUSTKIT_FIGURES": "figures"}

for _name in filter(os.environ.get, FOLDERS):  # relative to where this process began, for its children too
    os.environ[_name] = os.path.abspath(os.path.expanduser(os.environ[_name]))


def data_folder() -> Path:
    """Where datasets live: $ROBUSTKIT_DATA, or data/ beside the package."""
    return _folder("ROBUSTKIT_DATA")


def results_folder() -> Path:
    """Where local rows go: $ROBUSTKIT_RESULTS, or results/local/ beside the package."""
    return _folder("ROBUSTKIT_RESULTS")


def figures_folder(profile: str) -> Path:
    """Where a profile's figures go: $ROBUSTKIT_FIGURES, or figures/ beside the package, then the profile's name."""
    return _folder("ROBUSTKIT_FIGURES") / profile


def _folder(name: str) -> Path:
    return Path(os.environ.get(name) or ROOT / FOLDERS[name]).expanduser().absolute()


DAY = 86400.0  # seconds; whatever is still being written was touched within them


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Replace a file as a whole, by content or by what writes it: it holds the old content or the new, never a part.

    Its mode follows the umask.
    """
    data, part = content.encode() if isinstance(content, str) else content, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, f".{glob.escape(path.name)}-*")
        with open(path.with_name(f".{path.name}-{secrets.token_hex(8)}"), "xb") as file:
            part = Path(file.name)
            file.write(data) if isinstance(data, bytes) else data(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException as error:
        if part:
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"the file could not be written ({error.strerror})", str(path)) from error
        raise


def sync_folder(folder: Path) -> None:
    """Sync to disk what a folder lists, where its system can: a file that was just made or renamed is found there."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove what killed processes left: files and folders of that pattern, untouched for a day."""
    for left in folder.glob(pattern):
        with contextlib.suppress(OSError):  # another process may be done with it
            touched = max(path.lstat().st_mtime for path in (left, *left.rglob("*")))
            if touched < time.time() - DAY:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
