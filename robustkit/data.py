"""Datasets as in-memory tensors, checked by SHA-256, and the seeded generators that all randomness comes from.

Digits come with scikit-learn; MNIST and CIFAR are downloaded into `data_folder()` unless they lie there, as
torchvision lays them out; a user's own data is an .npz.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import tarfile
import tempfile
import threading
import zlib
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .checks import InputError, check_choice
from .datasets import DATASETS, dataset_info, read_npz
from .files import data_folder, remove_leftovers


class Dataset(NamedTuple):
    """Training and test points (n, *shape) with their classes (n,)."""

    x_train: Float[Tensor, " n_train dim *more"]
    y_train: Int[Tensor, " n_train"]
    x_test: Float[Tensor, " n_test dim *more"]
    y_test: Int[Tensor, " n_test"]


def load_dataset(
    name: str, *, scaling: str = "raw", device="cpu", dtype: torch.dtype = torch.float32, sha256: str | None = None
) -> Dataset:
    """Load a dataset, checked by SHA-256 before use, onto one device.

    name: "digits" (part of scikit-learn), "mnist", "cifar10", "cifar100" (downloaded if they are not there), or the
        path of an .npz with x_train, y_train, x_test, y_test (no pickle); images are (n, channels, height, width).
    scaling: "raw" (bytes/255, digits/16, a float .npz as it is), "unit" (each point divided by its l2 norm:
        Assumption 1), "standard" (one mean and standard deviation per channel, of the training set).
    sha256: of the content that an .npz must have, if its runs were described before.
    Raises InputError if a name is unknown, or a file is missing, damaged or not what it says.
    """
    check_choice("scaling", scaling, ("raw", "unit", "standard"))
    dataset_info(name)
    if name in ARCHIVES:
        arrays = read_cifar(name)
    elif name in DATASETS:
        arrays = _mnist() if name == "mnist" else _digits()
    else:
        arrays, digest = read_npz(os.path.expanduser(name))
        if sha256 not in (None, digest):
            raise InputError(f"dataset {name!r} has changed since its runs were described; make their cells anew")
    largest = 16 if name == "digits" else 255
    points = _scale(*(_fractions(x, largest) for x in arrays[::2]), scaling)
    x_train, x_test = (torch.from_numpy(x).to(device, dtype) for x in points)
    y_train, y_test = (torch.from_numpy(y.astype(np.int64)).to(device) for y in arrays[1::2])
    return Dataset(x_train, y_train, x_test, y_test)


def _fractions(x: np.ndarray, largest: int) -> np.ndarray:
    """Points in float32: bytes divided by the largest, without a second array of that size; others as they are."""
    fractions = x.astype(np.float32)
    if x.dtype == np.uint8:
        fractions /= largest
    return fractions


def _scale(x_train: np.ndarray, x_test: np.ndarray, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    if scaling == "unit":
        points = [(x, np.linalg.norm(x.reshape(len(x), -1), axis=1)) for x in (x_train, x_test)]
        if any((norms == 0).any() for _, norms in points):
            raise InputError("scaling is 'unit', but a point of the dataset is zero and has no direction")
        return tuple(x / norms.reshape(-1, *[1] * (x.ndim - 1)) for x, norms in points)
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


# ------------------------------------------------------------------------------------------------ digits and MNIST


def _digits() -> list[np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels, labels = digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
    _check_hash("scikit-learn's digits", pixels.tobytes() + labels.tobytes(), DATASETS["digits"].sha256)
    n = DATASETS["digits"].n_train
    return [pixels[:n], labels[:n], pixels[n:], labels[n:]]


# name -> (size in bytes, SHA-256) of each file, checked before anything in it is parsed; and of it as downloaded.
MNIST_FILES = {
    "train-images-idx3-ubyte": (47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
MNIST_GZ = {
    "train-images-idx3-ubyte.gz": (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    "train-labels-idx1-ubyte.gz": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    "t10k-images-idx3-ubyte.gz": (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    "t10k-labels-idx1-ubyte.gz": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
}


def missing_mnist_files() -> list[str]:
    """Names, as downloaded, of the files of MNIST that the data folder has neither gzipped nor unpacked."""
    folder = data_folder() / "MNIST" / "raw"
    return [f"{n}.gz" for n in MNIST_FILES if not (folder / n).exists() and not (folder / f"{n}.gz").exists()]


def _mnist() -> list[np.ndarray]:
    folder, arrays = data_folder() / "MNIST" / "raw", []
    if missing := missing_mnist_files():
        _download("mnist", folder, {name: MNIST_GZ[name] for name in missing})
    for name, known in MNIST_FILES.items():
        packed = not (folder / name).exists()
        content = _read(folder / (f"{name}.gz" if packed else name), *known, packed=packed)
        values = np.frombuffer(content, np.uint8, offset=16 if "images" in name else 8)
        arrays.append(values.reshape(-1, 1, 28, 28) if "images" in name else values)
    return arrays


def _read(path: Path, size: int, sha256: str, *, packed: bool = False) -> bytes:
    """The content of a file that has the expected size and SHA-256; at most one byte more is read, or unpacked."""
    try:
        with (gzip.open if packed else open)(path, "rb") as file:
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); delete it and run again") from error
    if len(content) != size:
        actual = "more" if len(content) > size else f"{len(content)}"
        raise InputError(f"{path} holds {actual} bytes, expected {size}; delete it and run again")
    _check_hash(path, content, sha256)
    return content


def _check_hash(what, content: bytes, expected: str) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise InputError(f"{what} is damaged: SHA-256 is {actual}, expected {expected}; delete it and run again")


# ------------------------------------------------------------------------------------------------ CIFAR

TEN, HUNDRED = "cifar-10-batches-bin", "cifar-100-binary"
TEN_TRAIN = [f"{TEN}/data_batch_{i}.bin" for i in range(1, 6)]
# name -> (file, size in bytes, label bytes ahead of each image, training members, test members).
# The last label byte is the class: CIFAR-100 has a coarse one before it.
ARCHIVES = {
    "cifar10": ("cifar-10-binary.tar.gz", 170052171, 1, TEN_TRAIN, [f"{TEN}/test_batch.bin"]),
    "cifar100": ("cifar-100-binary.tar.gz", 168513733, 2, [f"{HUNDRED}/train.bin"], [f"{HUNDRED}/test.bin"]),
}
OTHER_BYTES = 1 << 24  # room for what else a decompressed archive holds: headers, class names, a readme


def read_cifar(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_train, y_train, x_test, y_test: pixels (n, 3, 32, 32) as bytes, classes (n,) as int64, CIFAR-100's fine ones.

    name: "cifar10" or "cifar100". The official archive is never unpacked to disk.
    Raises InputError if it cannot be had, or if its size, SHA-256, members or labels are not the official ones.
    """
    (file, size, label_bytes, train, test), info = ARCHIVES[name], DATASETS[name]
    path = data_folder() / file
    if not path.exists():
        _download(name, path.parent, {file: (size, info.sha256)})
    record = label_bytes + math.prod(info.shape)
    sizes = dict.fromkeys(train, info.n_train // len(train) * record)
    sizes |= dict.fromkeys(test, info.n_test // len(test) * record)
    content = _read(path, size, info.sha256)
    try:
        files = _members(content, sizes)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}; delete it and run again") from error
    arrays = []
    for members in (train, test):
        records = np.frombuffer(b"".join(files.pop(member) for member in members), np.uint8).reshape(-1, record)
        labels = records[:, label_bytes - 1]
        if labels.max() >= info.classes:
            raise InputError(f"{path} cannot be used: it has a label {labels.max()}, but {info.classes} classes")
        arrays += [records[:, label_bytes:].reshape(-1, *info.shape), labels.astype(np.int64)]
    return tuple(arrays)


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


# ------------------------------------------------------------------------------------------------ downloads

TORONTO = "https://www.cs.toronto.edu/~kriz/"
MIRRORS = {
    "mnist": [
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ],
    "cifar10": [TORONTO],
    "cifar100": [TORONTO],
}
SILENCE = 60  # seconds without a byte from the server
SLOWEST = 20_000  # bytes a second over the whole of a file, which may also take a SILENCE
PART = "robustkit-part-"  # a name of our own: such folders are removed


def _download(dataset: str, folder: Path, files: dict[str, tuple[int, str]]) -> None:
    """Download files, name -> (size, SHA-256), into a folder of their own, check them, only then move each in place.

    Two processes may do so at once; what killed ones left there is removed a day later.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    failures = []
    for mirror in MIRRORS[dataset]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder, f"{PART}*")
            with tempfile.TemporaryDirectory(dir=folder, prefix=PART) as part:
                for name, (size, sha256) in files.items():
                    print(f"downloading {mirror}{name} ({size / 1e6:.0f} MB) into {folder}", flush=True)
                    arguments = mirror + name, sha256, name, part, None, _downloader(size)
                    _within(SILENCE + size / SLOWEST, pooch.retrieve, *arguments)
                    os.replace(Path(part) / name, folder / name)
            return
        except (OSError, ValueError) as error:  # of requests, and of pooch where the hash is another
            failures.append(f"from {mirror}: {str(error) or f'slower than {SLOWEST:g} bytes a second'}")
    wanted = ", ".join(f"{name} ({size} bytes)" for name, (size, _) in files.items())
    raise InputError(
        f"put {wanted} into {folder}, or point ROBUSTKIT_DATA at the folder that holds {dataset}: "
        f"it is not in {folder} and could not be downloaded {'; '.join(failures)}"
    )


def _within(seconds: float, function, *arguments) -> None:
    """Call a function; TimeoutError if it takes longer, when it goes on in a thread that ends with the process."""
    done = Future()

    def call() -> None:
        try:
            done.set_result(function(*arguments))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    done.result(seconds)


def _downloader(size: int):
    """A downloader for pooch, whose own leaves connections to the garbage collector; it refuses another size."""
    import requests

    def download(url: str, path: str, _pooch) -> None:
        with requests.get(url, stream=True, timeout=SILENCE) as response, open(path, "wb") as file:
            response.raise_for_status()
            for chunk in response.iter_content(1 << 20):
                file.write(chunk)
                if file.tell() > size:
                    raise InputError(f"it holds more than {size} bytes")
            if file.tell() != size:
                raise InputError(f"it holds {file.tell()} bytes, expected {size}")

    return download


# ------------------------------------------------------------------------------------------------ randomness


def stream_generator(seed: int, stream: str, index: int = 0) -> torch.Generator:
    """A CPU generator seeded by 32 bits of sha256("seed/stream/index"): streams do not overlap across seeds."""
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def fixed_points(n: int, count: int, stream: str) -> Tensor:
    """The first `count` of a shuffle of range(n) that never changes: the same points for every network."""
    return torch.randperm(n, generator=stream_generator(0, stream))[:count]
