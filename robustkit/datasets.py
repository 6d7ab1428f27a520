"""Sizes and content hashes of the datasets, known before they are read, and the checks on a user's own .npz."""

from __future__ import annotations

import functools
import hashlib
import io
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
    return _npz_info(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@functools.lru_cache
def _npz_info(path: str, *_stamp: int) -> DatasetInfo:  # a copy that keeps size and time has another ctime or inode
    (x_train, y_train, x_test, _), digest = read_npz(path)
    return DatasetInfo(len(x_train), len(x_test), x_train.shape[1:], int(y_train.max()) + 1, digest)


def read_npz(path: str) -> tuple[list, str]:
    """x_train, y_train, x_test, y_test of a user's own .npz, and its SHA-256: points (n, ...) and their classes (n,).

    Points are uint8 or of a floating type, classes the whole numbers from 0 on, of either byte order; images have
    their channels first. The file is read once, so that both are of the same bytes. Never unpickles. Raises
    InputError, naming the array and how to convert it, otherwise.
    """
    import numpy as np

    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with open(path, "rb") as file:
            content = file.read()
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            unpacked = sum(entry.file_size for entry in archive.zip.infolist())
            if unpacked > max(MOST_UNPACKED, MOST_TIMES * len(content)):
                raise ValueError(f"it would unpack to {unpacked} bytes")
            if damaged := archive.zip.testzip():
                raise ValueError(f"{damaged} is damaged")
            lacking = [name for name in names if name not in archive]
            arrays = {name: archive[name] for name in names if name not in lacking}
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a damaged file
        raise InputError(f"dataset {path!r} is not a plain .npz archive ({error})") from error
    if lacking:
        raise InputError(f"dataset {path!r} lacks {', '.join(lacking)}; it must hold {', '.join(names)}")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"dataset {path!r}: {name} must be an array as numpy.savez writes it")
        arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    for part in ("train", "test"):
        if problem := _problem(part, **arrays):
            raise InputError(f"dataset {path!r}: {problem}")
    return [arrays[name] for name in names], hashlib.sha256(content).hexdigest()


def _problem(part: str, x_train, y_train, x_test, y_test) -> str:
    """What is wrong with the points or classes of one part, and how it is put right."""
    import numpy as np

    x, y = (x_train, y_train) if part == "train" else (x_test, y_test)
    if y.ndim == 2 and len(y) == len(x):
        columns = "ravel()" if y.shape[1] == 1 else "argmax(1)"
        return (
            f"y_{part} is {y.shape}, but must be one class a point, {y.shape[:1]}: y_{part}.{columns} is, if one-hot"
        )
    if x.ndim < 2 or math.prod(x.shape) == 0 or y.shape != x.shape[:1] or x.shape[1:] != x_train.shape[1:]:
        return f"x_{part} is {x.shape} and y_{part} {y.shape}; they must match"
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] > 4 and x.shape[2] != x.shape[3]:
        return f"x_{part} is {x.shape}, images with channels last, but must be x_{part}.transpose(0, 3, 1, 2)"
    if x.dtype.kind in "ui" and x.dtype != np.uint8:
        kinds = "uint8 (pixels, which are divided by 255) or float32 (left as it is)"
        return f"x_{part} is {x.dtype}, but must be {kinds}: x_{part}.astype(...) makes it so"
    if x.dtype.kind not in "uf" or x.dtype != x_train.dtype or not (abs(x) <= np.finfo(np.float32).max).all():
        return f"x_{part} must hold finite numbers of one type, not {x.dtype}"
    if y.dtype.kind not in "iu":
        return f"y_{part} is {y.dtype}, but must be whole numbers: y_{part}.astype(int) is"
    classes, wanted = np.unique(y), np.unique(y_train)
    if part == "train" and not np.array_equal(classes, np.arange(len(classes))):
        few = ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
        renumber = "numpy.searchsorted(numpy.unique(y_train), y) renumbers both parts"
        return f"y_train holds the classes {few}, but must hold 0, 1, 2, ... without a gap: {renumber}"
    if not np.isin(classes, wanted).all():
        return f"y_test holds the class {np.setdiff1d(classes, wanted)[0]}, which y_train does not hold"
    return ""
