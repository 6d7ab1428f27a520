"""The folders of datasets, rows and figures, and files that are written whole."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """Where datasets live: $ROBUSTKIT_DATA, or data/ beside the package."""
    return Path(os.environ.get("ROBUSTKIT_DATA") or ROOT / "data").expanduser()


def results_folder() -> Path:
    """Where local rows go: $ROBUSTKIT_RESULTS, or results/local/ beside the package."""
    return Path(os.environ.get("ROBUSTKIT_RESULTS") or ROOT / "results" / "local").expanduser()


def figures_folder(profile: str) -> Path:
    """Where a profile's figures go: $ROBUSTKIT_FIGURES, or figures/ beside the package, then the profile's name."""
    return Path(os.environ.get("ROBUSTKIT_FIGURES") or ROOT / "figures").expanduser() / profile


DAY = 86400.0  # seconds; whatever is still being written was touched within them


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole: it holds the old content or the new, never a part."""
    data, part = content.encode() if isinstance(content, str) else content, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, f".{glob.escape(path.name)}-*")
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException as error:
        if part:
            Path(part).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"the file could not be written ({error.strerror})", str(path)) from error
        raise


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove what killed processes left: files and folders of that pattern, untouched for a day."""
    for left in folder.glob(pattern):
        with contextlib.suppress(OSError):  # another process may be done with it
            touched = max(path.lstat().st_mtime for path in (left, *left.rglob("*")))
            if touched < time.time() - DAY:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
