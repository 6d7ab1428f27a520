"""A long run on disk, so that a stop costs a minute: two generations, each closed by its SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
import os
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..files import results_folder, write_atomically

SECONDS = 60.0  # between two checkpoints of one run, or 20 times what the last one took, if that is more
LONGEST = 500.0  # and never more than this: a stop costs less than ten minutes
FIRST_LINE = b"robustkit checkpoint 1, sha256 of what follows: "


class Saved(NamedTuple):
    """A run before its step `step`: every tensor from which training resumes, and what was observed until then."""

    step: int
    state: dict[str, Tensor]
    notes: dict


def paths(key: str, device: str) -> tuple[Path, Path]:
    """The newest checkpoint of a run by this version of torch on this kind of device, and the one before.

    A row has one engine: another version, kind of CPU or device has checkpoints of its own, and leaves these alone.
    """
    gpu = device.startswith("cuda")
    kind = torch.cuda.get_device_name(device) if gpu else f"{device}-{torch.backends.cpu.get_cpu_capability()}"
    name = re.sub("[^A-Za-z0-9.]+", "-", f"{key}-torch-{torch.__version__}-{kind}")
    folder = results_folder() / "checkpoints"
    return folder / f"{name}.checkpoint", folder / f"{name}.checkpoint-before"


def save(key: str, saved: Saved, device: str) -> None:
    """Write a checkpoint; the newest one until now, if it is sound, becomes the one before.

    One of a later step stays the newest. A disk that is full is a warning, and leaves what is there.
    """
    newest, before = paths(key, device)
    try:
        there = _read(newest, key).step
    except UnusableError:
        there = -1
    if there > saved.step:
        return
    try:
        fresh = newest.with_name(f"{newest.name}-new")
        write_atomically(fresh, lambda file: _write(file, key, saved))
        if 0 <= there < saved.step:
            os.replace(newest, before)
        os.replace(fresh, newest)
    except OSError as error:
        warnings.warn(f"{error}; training continues without this checkpoint", stacklevel=2)


def load(fresh: Mapping[str, Saved], device: str) -> list[Saved] | None:
    """Checkpoints of the latest step that all these runs have; None if there is no such step.

    fresh: each run by its key, as it would begin: a checkpoint has the same names, shapes and types. Anything else in
    its place is named in a warning, and left alone.
    """
    found = {key: _steps(key, device) for key in fresh}
    if not (common := set.intersection(*map(set, found.values()))):
        return None
    saved = [_usable(found[key][max(common)], key, like) for key, like in fresh.items()]
    return saved if all(saved) else None


def resumable(keys: Sequence[str], device: str) -> list[list[str]]:
    """The keys in parts that can resume together: each from a step that all of its runs have, the last from none."""
    found, parts, left = {key: _steps(key, device) for key in keys}, [], list(keys)
    while counts := Counter(step for key in left for step in found[key]):
        most = max(counts, key=lambda step: (counts[step], step))
        parts.append([key for key in left if most in found[key]])
        left = [key for key in left if most not in found[key]]
    return parts + [left] * bool(left)


def remove(key: str) -> None:
    """Delete the checkpoints of a run that has its row, whatever made them."""
    for name in (f"{key}-*", f".{key}-*"):  # and what a killed process left half written
        for path in (results_folder() / "checkpoints").glob(name):
            with contextlib.suppress(OSError):  # no file, or another process was faster
                path.unlink()


# ------------------------------------------------------------------------------------------------ one file


class UnusableError(ValueError):
    """A file is not a checkpoint of this run."""


class _Hashed:
    """A file to be written from its beginning to its end, and the SHA-256 of what was."""

    def __init__(self, file):
        self.file, self.sha256, self.flush = file, hashlib.sha256(), file.flush

    def write(self, data) -> int:
        self.sha256.update(data)
        return self.file.write(data)


def _write(file, key: str, saved: Saved) -> None:
    """An archive as numpy.savez makes it, one array after another: memory holds no copy of the whole."""
    facts, hashed = {"key": key, "step": saved.step, "notes": saved.notes}, _Hashed(file)
    file.write(FIRST_LINE + b"0" * 64 + b"\n")
    with zipfile.ZipFile(hashed, "w") as archive:
        for name, value in {"facts": np.array(json.dumps(facts)), **saved.state}.items():
            array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    file.seek(len(FIRST_LINE))
    file.write(hashed.sha256.hexdigest().encode())


def _read(path: Path, key: str, like: Saved | None = None) -> Saved:
    """A checkpoint of this run, with its tensors if `like` says what they are. Raises UnusableError."""
    try:
        with open(path, "rb") as file:
            first = file.readline(len(FIRST_LINE) + 65)
            if first != FIRST_LINE + hashlib.file_digest(file, "sha256").hexdigest().encode() + b"\n":
                raise UnusableError("damaged")
            file.seek(len(first))
            with np.load(file, allow_pickle=False) as archive:
                facts = json.loads(str(archive["facts"]))
                if facts["key"] != key:
                    raise UnusableError("that of another run")
                names = like.state if like and {"facts", *like.state} == set(archive) else ()
                state = {name: torch.from_numpy(archive[name]) for name in names}
        saved = Saved(operator.index(facts["step"]), state, facts["notes"])
        if like and (_kinds(state) != _kinds(like.state) or not _names(like.notes) <= _names(saved.notes)):
            raise UnusableError("that of another network")
        return saved
    except UnusableError:
        raise
    except OSError as error:
        raise UnusableError(f"unreadable ({error.strerror or error})") from error
    except (ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise UnusableError("no checkpoint") from error


def _kinds(state: dict[str, Tensor]) -> dict:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _names(notes: dict) -> set[str]:
    return {*notes, *notes.get("trace", ())}


def _usable(path: Path, key: str, like: Saved | None = None) -> Saved | None:
    if os.path.lexists(path):
        try:
            return _read(path, key, like)
        except UnusableError as error:
            warnings.warn(f"{path} is {error} and not used", stacklevel=2)
    return None


def _steps(key: str, device: str) -> dict[int, Path]:
    """The sound checkpoints of a run by their steps."""
    return {saved.step: path for path in paths(key, device)[::-1] if (saved := _usable(path, key))}
