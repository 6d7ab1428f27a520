"""A long training on disk, so that a stop costs a minute: two generations, each closed by its SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .config import results_folder
from .store import write_atomically

SECONDS = 60.0  # between two checkpoints of one training
FIRST_LINE = b"robustkit checkpoint 1, sha256 of what follows: "


class Saved(NamedTuple):
    """A training before its step `step`: every tensor it goes on from, and what was observed until then."""

    step: int
    tensors: dict[str, Tensor]
    notes: dict


def paths(key: str) -> tuple[Path, Path]:
    """The newest checkpoint of a training, and the one before."""
    folder = results_folder() / "checkpoints"
    return folder / f"{key}.checkpoint", folder / f"{key}.checkpoint-before"


def save(key: str, saved: Saved, device: str) -> None:
    """Write a checkpoint; the newest one until now becomes the one before. A disk that is full is a warning."""
    newest, before = paths(key)
    facts = {"key": key, "step": saved.step, "notes": saved.notes, **_engine(device)}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in saved.tensors.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, facts=np.array(json.dumps(facts)))
    body = buffer.getvalue()
    try:
        with contextlib.suppress(FileNotFoundError):
            os.replace(newest, before)
        write_atomically(newest, FIRST_LINE + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    except OSError as error:
        warnings.warn(f"{error}; the training goes on without this checkpoint", stacklevel=2)


def load(key: str, device: str) -> Saved | None:
    """The newest sound checkpoint of a training, None if there is none. A damaged one is named and left alone.

    One of another version of torch, or of another kind of device, is named and not used: a row has one engine.
    """
    for path in paths(key):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        first, _, body = content.partition(b"\n")
        if first != FIRST_LINE + hashlib.sha256(body).hexdigest().encode():
            warnings.warn(f"{path} is damaged and not used", stacklevel=2)
            continue
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive}
        facts = json.loads(str(arrays.pop("facts")))
        engine = {name: facts[name] for name in _engine(device)}
        if facts["key"] != key or engine != _engine(device):
            warnings.warn(f"{path} is of {engine}, this is {_engine(device)}: it is not used", stacklevel=2)
            continue
        return Saved(facts["step"], {name: torch.from_numpy(a) for name, a in arrays.items()}, facts["notes"])
    return None


def remove(key: str) -> None:
    """Delete the checkpoints of a training that has its row."""
    for path in paths(key):
        path.unlink(missing_ok=True)


def _engine(device: str) -> dict[str, str]:
    return {"torch": torch.__version__, "device": torch.device(device).type}
