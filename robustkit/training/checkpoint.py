"""A long run on disk, so that a stop costs a minute: two generations, each closed by its SHA-256."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Sequence
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

    A row has one engine: another version or device has checkpoints of its own, and leaves these alone.
    """
    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    name = re.sub("[^A-Za-z0-9.]+", "-", f"{key}-torch-{torch.__version__}-{kind}")
    folder = results_folder() / "checkpoints"
    return folder / f"{name}.checkpoint", folder / f"{name}.checkpoint-before"


def save(key: str, saved: Saved, device: str) -> None:
    """Write a checkpoint; the newest one until now, if it is sound, becomes the one before.

    A disk that is full is a warning, and leaves what is there.
    """
    (newest, before), buffer = paths(key, device), io.BytesIO()
    facts = {"key": key, "step": saved.step, "notes": saved.notes}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in saved.state.items()}
    np.savez(buffer, **arrays, facts=np.array(json.dumps(facts)))
    body = buffer.getvalue()
    try:
        fresh = newest.with_name(f"{newest.name}-new")
        write_atomically(fresh, FIRST_LINE + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        if _body(newest):
            os.replace(newest, before)
        os.replace(fresh, newest)
    except OSError as error:
        warnings.warn(f"{error}; training continues without this checkpoint", stacklevel=2)


def load(keys: Sequence[str], device: str) -> list[Saved] | None:
    """Sound checkpoints of the latest step that all these runs have; None if there is no such step.

    A damaged file is named in a warning and left alone.
    """
    generations = [{s.step: s for path in paths(key, device)[::-1] if (s := _read(path))} for key in keys]
    together = set.intersection(*map(set, generations))
    return [saved[max(together)] for saved in generations] if together else None


def _read(path: Path) -> Saved | None:
    if body := _body(path):
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive}
        facts = json.loads(str(arrays.pop("facts")))
        return Saved(facts["step"], {name: torch.from_numpy(a) for name, a in arrays.items()}, facts["notes"])
    if path.exists():
        warnings.warn(f"{path} is damaged and not used", stacklevel=2)
    return None


def remove(key: str) -> None:
    """Delete the checkpoints of a run that has its row, whatever made them."""
    for name in (f"{key}-*", f".{key}-*"):  # and what a killed process left half written
        for path in (results_folder() / "checkpoints").glob(name):
            path.unlink(missing_ok=True)


def _body(path: Path) -> bytes | None:
    """The bytes of a file below its first line, None if there is no file or its SHA-256 is another."""
    try:
        first, _, body = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    return body if first == FIRST_LINE + hashlib.sha256(body).hexdigest().encode() else None
