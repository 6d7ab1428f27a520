"""Sizes and content hashes of the datasets, known before they are read, and the checks on a user's own .npz."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from dataclasses import dataclass

from .checks import InputError, check_choice

# An archive may unpack to this many bytes whatever its size, and beyond that to this many times its size.
MOST_UNPACKED, MOST_TIMES = 1 << 28, 100


@dataclass(frozen=True)
class DatasetInfo:
    """Sizes of a dataset, and the SHA-256 of its content."""

    n_train: int
    n_test: int
    shape: tuple[int, ...]
    classes: int
    sha256: str


# The hash is that of the digits' bytes, of the hashes of MNIST's files, of CIFAR's official archive.
_CIFAR = (50000, 10000, (3, 32, 32))
DATASETS = {
    "digits": (1437, 360, (1, 8, 8), 10, "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"),
    "mnist": (60000, 10000, (1, 28, 28), 10, "8ffbe74d79c66b7e9f0bf40f1c79f92c6718d8d1aec0ccb3321b50e27cfc2167"),
    "cifar10": (*_CIFAR, 10, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
    "cifar100": (*_CIFAR, 100, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
}
DATASETS = {name: DatasetInfo(*facts) for name, facts in DATASETS.items()}


def dataset_info(name: str) -> DatasetInfo:
    """Sizes and content hash of a named dataset, or of the .npz file at that path.

    Raises InputError if the name is unknown, or the file is missing or refused by `read_npz`.
    """
    if name in DATASETS:
        return DATASETS[name]
    if not str(name).endswith(".npz"):
        check_choice("dataset", name, (*DATASETS, "the path of an .npz"))
    path = os.path.expanduser(name)
    if not os.path.isfile(path):
        raise InputError(f"dataset is {name!r}, but there is no such file")
    stat = os.stat(path)
    return _npz_info(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache
def _npz_info(path: str, _mtime: int, _size: int) -> DatasetInfo:
    x_train, y_train, x_test, _ = read_npz(path)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return DatasetInfo(len(x_train), len(x_test), x_train.shape[1:], int(y_train.max()) + 1, digest)


def read_npz(path: str) -> list:
    """x_train, y_train, x_test, y_test of a user's own .npz: points (n, ...) and whole-number classes (n,).

    Never unpickles. Raises InputError, naming the array, if the file is not such an archive.
    """
    import numpy as np

    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as archive:
            unpacked = sum(entry.file_size for entry in archive.zip.infolist())
            if unpacked > max(MOST_UNPACKED, MOST_TIMES * os.path.getsize(path)):
                raise ValueError(f"it would unpack to {unpacked} bytes")
            if damaged := archive.zip.testzip():
                raise ValueError(f"{damaged} is damaged")
            lacking = [name for name in names if name not in archive]
            arrays = {name: archive[name] for name in names if name not in lacking}
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a damaged file
        raise InputError(f"dataset {path!r} is not a plain .npz archive ({error})") from error
    if lacking:
        raise InputError(f"dataset {path!r} lacks {', '.join(lacking)}; it must hold {', '.join(names)}")
    x_train, y_train = arrays["x_train"], arrays["y_train"]
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if any(not isinstance(array, np.ndarray) for array in (x, y)):
            raise InputError(f"dataset {path!r}: x_{part} and y_{part} must be arrays as numpy.savez writes them")
        if x.ndim < 2 or math.prod(x.shape) == 0 or y.shape != x.shape[:1] or x.shape[1:] != x_train.shape[1:]:
            raise InputError(f"dataset {path!r}: x_{part} is {x.shape} and y_{part} {y.shape}; they must match")
        if x.dtype.kind not in "uif" or x.dtype != x_train.dtype or not (abs(x) <= np.finfo(np.float32).max).all():
            raise InputError(f"dataset {path!r}: x_{part} must hold finite numbers of one type, not {x.dtype}")
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() > y_train.max():
            raise InputError(f"dataset {path!r}: y_{part} must hold whole numbers from 0 to y_train's largest")
    return [arrays[name] for name in names]
