"""CIFAR-10 and CIFAR-100 from the official binary archives: checked whole, then read in memory, never unpacked."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import math
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from .cell import DATASETS, data_folder
from .checks import InputError
from .sweep.store import remove_leftovers

URL = "https://www.cs.toronto.edu/~kriz/"
TIMEOUT_SECONDS = 60  # without a byte from the server
PART = "robustkit-part-"  # a name of our own: such folders are removed
OTHER_BYTES = 1 << 24  # room for what else a decompressed archive holds: headers, class names, a readme

TEN, HUNDRED = "cifar-10-batches-bin", "cifar-100-binary"
TEN_TRAIN = [f"{TEN}/data_batch_{i}.bin" for i in range(1, 6)]
# name -> (file, size in bytes, label bytes ahead of each image, training members, test members).
# The last label byte is the class: CIFAR-100 has a coarse one before it.
ARCHIVES = {
    "cifar10": ("cifar-10-binary.tar.gz", 170052171, 1, TEN_TRAIN, [f"{TEN}/test_batch.bin"]),
    "cifar100": ("cifar-100-binary.tar.gz", 168513733, 2, [f"{HUNDRED}/train.bin"], [f"{HUNDRED}/test.bin"]),
}


def read_cifar(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_train, y_train, x_test, y_test: pixels (n, 3, 32, 32) as bytes, classes (n,) as int64, CIFAR-100's fine ones.

    name: "cifar10" or "cifar100". The archive is downloaded into `data_folder()` unless it lies there.
    Raises InputError if it cannot be had, or if its size, SHA-256, members or labels are not the official ones.
    """
    (file, size, label_bytes, train, test), info = ARCHIVES[name], DATASETS[name]
    path = data_folder() / file
    if not os.path.exists(path):
        _download(path, size, info.sha256)
    record = label_bytes + math.prod(info.shape)
    sizes = dict.fromkeys(train, info.n_train // len(train) * record)
    sizes |= dict.fromkeys(test, info.n_test // len(test) * record)
    try:
        files = _members(_checked(path, size, info.sha256), sizes)
    except (OSError, InputError) as error:
        raise InputError(f"{path} cannot be used: {error}; delete it and run again") from error
    arrays = []
    for members in (train, test):
        records = np.frombuffer(b"".join(files.pop(member) for member in members), np.uint8).reshape(-1, record)
        labels = records[:, label_bytes - 1]
        if labels.max() >= info.classes:
            raise InputError(f"{path} cannot be used: it has a label {labels.max()}, but {info.classes} classes")
        arrays += [records[:, label_bytes:].reshape(-1, *info.shape).copy(), labels.astype(np.int64)]
    return tuple(arrays)


def _checked(path: Path, size: int, sha256: str) -> bytes:
    """The bytes of a file, read only if it has the expected size; a sentence about "it" if it is another file."""
    if (actual := path.stat().st_size) != size:
        raise InputError(f"it holds {actual} bytes, expected {size}")
    with open(path, "rb") as file:
        content = file.read(size + 1)  # should the file grow meanwhile, its SHA-256 is another
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise InputError(f"it is damaged: SHA-256 is {digest}, expected {sha256}")
    return content


def _members(content: bytes, sizes: dict[str, int]) -> dict[str, bytes]:
    """The members of a .tar.gz that `sizes` names; nothing is extracted, no link followed."""
    try:
        with gzip.open(io.BytesIO(content)) as packed:
            plain = packed.read(sum(sizes.values()) + OTHER_BYTES)
            if packed.read(1):
                raise InputError(f"more than {len(plain)} bytes once decompressed")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for entry in archive:
                inside = not entry.name.startswith("/") and ".." not in entry.name.split("/")
                if not inside or not (entry.isreg() or entry.isdir()):
                    raise InputError(f"{entry.name!r} is not a plain file in its folder")
            for name, size in sizes.items():
                if (actual := archive.getmember(name).size) != size:
                    raise InputError(f"{name} holds {actual} bytes, expected {size}")
            return {name: archive.extractfile(name).read() for name in sizes}
    except MemoryError:  # not the file's fault
        raise
    except Exception as error:  # gzip, zlib and tarfile raise many kinds
        raise InputError(f"it is not the official .tar.gz ({error})") from error


def part_folder(place: Path) -> tempfile.TemporaryDirectory:
    """A folder in `place` for an unfinished download; what killed ones left there is removed first."""
    remove_leftovers(place, f"{PART}*")
    return tempfile.TemporaryDirectory(dir=place, prefix=PART)


def _download(path: Path, size: int, sha256: str) -> None:
    """Download into a folder of its own (two processes may race), check, and only then move the file into place."""
    url = URL + path.name
    print(f"downloading {url} ({size / 1e6:.0f} MB) into {path.parent}", flush=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part_folder(path.parent) as folder:
            part = Path(folder) / path.name
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, open(part, "wb") as file:
                while block := response.read(1 << 20):
                    if file.tell() + len(block) > size:
                        raise InputError(f"it holds more than {size} bytes")
                    file.write(block)
            _checked(part, size, sha256)
            os.replace(part, path)
    except (OSError, http.client.HTTPException, InputError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise InputError(
            f"{path.name} is not in {path.parent} and could not be downloaded from {url}: {error}. "
            f"Put that file of {size} bytes there, or point ROBUSTKIT_DATA at the folder that holds it."
        ) from error
