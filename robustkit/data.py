"""Datasets as verified in-memory tensors, and the seeded generators that all randomness comes from."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import math
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .cell import DATASETS, dataset_info, read_npz
from .checks import InputError, check_choice
from .files import data_folder, remove_leftovers

# name -> (size in bytes, SHA-256) of each file, checked before anything in it is parsed.
MNIST_FILES = {
    "train-images-idx3-ubyte": (47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}


class Dataset(NamedTuple):
    """Training and test points (n, *shape) with their classes (n,)."""

    x_train: Float[Tensor, " n_train dim *more"]
    y_train: Int[Tensor, " n_train"]
    x_test: Float[Tensor, " n_test dim *more"]
    y_test: Int[Tensor, " n_test"]


def stream_generator(seed: int, stream: str, index: int = 0) -> torch.Generator:
    """A CPU generator seeded by 32 bits of sha256("seed/stream/index"): streams do not overlap across seeds."""
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def load_dataset(name: str, *, scaling: str = "raw", device="cpu", dtype: torch.dtype = torch.float32) -> Dataset:
    """Load a dataset, checked by SHA-256 before use, onto one device.

    name: "digits" (part of scikit-learn), "mnist", "cifar10", "cifar100" (downloaded if they are not there), or the
        path of an .npz with x_train, y_train, x_test, y_test (no pickle); images are (n, channels, height, width).
    scaling: "raw" (bytes/255, digits/16, a float .npz as it is), "unit" (each point divided by its l2 norm:
        Assumption 1), "standard" (one mean and standard deviation a channel, of the training set).
    Raises InputError if a name is unknown, or a file is missing, damaged or not what it says.
    """
    check_choice("scaling", scaling, ("raw", "unit", "standard"))
    dataset_info(name)
    if name in ARCHIVES:
        arrays = _cifar(name)
    else:
        arrays = {"digits": _digits, "mnist": _mnist}[name]() if name in DATASETS else _npz(name)
    x_train, y_train, x_test, y_test = arrays
    x_train, x_test = _scale(x_train, x_test, scaling)
    return Dataset(
        torch.from_numpy(x_train).to(device, dtype),
        torch.from_numpy(y_train).to(device, torch.int64),
        torch.from_numpy(x_test).to(device, dtype),
        torch.from_numpy(y_test).to(device, torch.int64),
    )


def fixed_points(n: int, count: int, stream: str) -> Tensor:
    """The first `count` of a shuffle of range(n) that never changes: the same points for every network."""
    return torch.randperm(n, generator=stream_generator(0, stream))[:count]


def _scale(x_train: np.ndarray, x_test: np.ndarray, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    if scaling == "unit":
        points = [x.reshape(len(x), -1) for x in (x_train, x_test)]
        norms = [np.linalg.norm(x, axis=1).reshape(-1, *[1] * (x_train.ndim - 1)) for x in points]
        if any((norm == 0).any() for norm in norms):
            raise InputError("scaling is 'unit', but a point of the dataset is zero and has no direction")
        return x_train / norms[0], x_test / norms[1]
    if scaling == "standard":
        # (n, channels, h, w): over all but the channel; (n, d): one channel
        axes = tuple(i for i in range(x_train.ndim) if i != 1 or x_train.ndim < 4)
        mean = x_train.mean(axis=axes, keepdims=True, dtype=np.float64)
        std = x_train.std(axis=axes, keepdims=True, dtype=np.float64)
        if (std == 0).any():
            raise InputError("scaling is 'standard', but a channel of the training set is constant")
        mean, std = mean.astype(np.float32), std.astype(np.float32)
        return (x_train - mean) / std, (x_test - mean) / std
    return x_train, x_test


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels, labels = digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
    _check_hash("scikit-learn's digits", pixels.tobytes() + labels.tobytes(), DATASETS["digits"].sha256)
    x, n = pixels.astype(np.float32) / 16, DATASETS["digits"].n_train
    return x[:n], labels[:n], x[n:], labels[n:]


def _npz(name: str):
    x_train, y_train, x_test, y_test = read_npz(str(Path(name).expanduser()))
    scale = np.float32(255) if x_train.dtype == np.uint8 else np.float32(1)
    return x_train.astype(np.float32) / scale, y_train, x_test.astype(np.float32) / scale, y_test


def _cifar(name: str):
    x_train, y_train, x_test, y_test = read_cifar(name)
    return _fractions(x_train), y_train, _fractions(x_test), y_test


def _fractions(pixels: np.ndarray) -> np.ndarray:
    """Bytes divided by 255, without a second array of that size."""
    fractions = pixels.astype(np.float32)
    fractions /= 255
    return fractions


def _mnist():
    folder = data_folder() / "MNIST" / "raw"
    if not all((folder / name).exists() or (folder / f"{name}.gz").exists() for name in MNIST_FILES):
        _download_mnist(folder)
    arrays = []
    for name, (size, digest) in MNIST_FILES.items():
        path = folder / name
        # A gzipped copy serves where space is short; it is never unpacked beyond the known size.
        opener, path = (open, path) if path.exists() else (gzip.open, folder / f"{name}.gz")
        try:
            with opener(path, "rb") as file:
                content = file.read(size + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} cannot be read ({error}); delete it and run again") from error
        if len(content) != size:
            actual = "more" if len(content) > size else f"{len(content)}"
            raise InputError(f"{path} holds {actual} bytes, expected {size}; delete it and run again")
        _check_hash(path, content, digest)
        header = 16 if "images" in name else 8
        values = np.frombuffer(content, np.uint8, offset=header)
        arrays.append(values.reshape(-1, 1, 28, 28).astype(np.float32) / 255 if "images" in name else values)
    return arrays[0], arrays[1].astype(np.int64), arrays[2], arrays[3].astype(np.int64)


def _download_mnist(folder: Path) -> None:
    """Download by torchvision into a folder of its own, check, and only then move the files into place."""
    folder.mkdir(parents=True, exist_ok=True)
    with part_folder(folder) as part:
        print(f"downloading MNIST into {folder}", flush=True)
        try:
            import torchvision

            torchvision.datasets.MNIST(part, download=True)
        except Exception as error:  # torchvision raises several kinds when offline
            raise InputError(
                f"MNIST is not in {folder} and could not be downloaded ({error}). "
                f"Put {', '.join(MNIST_FILES)} there, or point ROBUSTKIT_DATA at the folder that holds MNIST/raw."
            ) from error
        for name, (_, digest) in MNIST_FILES.items():
            path = Path(part) / "MNIST" / "raw" / name
            _check_hash(path, path.read_bytes(), digest)
            os.replace(path, folder / name)
        shutil.rmtree(Path(part) / "MNIST", ignore_errors=True)


def _check_hash(what, content: bytes, expected: str) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise InputError(f"{what} is damaged: SHA-256 is {actual}, expected {expected}; delete it and run again")


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
