"""Where things live, what is known of a dataset before it is read, and what one training is (Cell)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from .checks import InputError, check_choice, check_number

ROOT = Path(__file__).resolve().parent.parent

# Raise a family's number when an edit changes what its trainings measure: old rows then stop matching.
NUMERICS = {"fcn": 1, "cnn": 1, "resnet": 1}

INITS = ("he", "lecun", "ntk", "power", "gain")

# When a training is looked at, as fractions of it: loss and kappa at 51 instants, stability and movement at seven.
INSTANTS = tuple(k / 50 for k in range(51))
FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def data_folder() -> Path:
    """Where datasets live: $ROBUSTKIT_DATA, or data/ beside the package."""
    return Path(os.environ.get("ROBUSTKIT_DATA") or ROOT / "data").expanduser()


def results_folder() -> Path:
    """Where local rows go: $ROBUSTKIT_RESULTS, or results/local/ beside the package."""
    return Path(os.environ.get("ROBUSTKIT_RESULTS") or ROOT / "results" / "local").expanduser()


def figures_folder(profile: str) -> Path:
    """Where a profile's figures go: $ROBUSTKIT_FIGURES, or figures/ beside the package, then the profile's name."""
    return Path(os.environ.get("ROBUSTKIT_FIGURES") or ROOT / "figures").expanduser() / profile


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before it is read: sizes, and the SHA-256 of its content."""

    n_train: int
    n_test: int
    shape: tuple[int, ...]
    classes: int
    sha256: str


# A dataset's identity: digits by their bytes, MNIST by its files' hashes, CIFAR by the official archive.
DATASETS = {
    "digits": DatasetInfo(
        1437, 360, (1, 8, 8), 10, "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"
    ),
    "mnist": DatasetInfo(
        60000, 10000, (1, 28, 28), 10, "8ffbe74d79c66b7e9f0bf40f1c79f92c6718d8d1aec0ccb3321b50e27cfc2167"
    ),
    "cifar10": DatasetInfo(
        50000, 10000, (3, 32, 32), 10, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    ),
    "cifar100": DatasetInfo(
        50000, 10000, (3, 32, 32), 100, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
    ),
}


def dataset_info(name: str) -> DatasetInfo:
    """Sizes and content hash of a named dataset, or of the .npz file at that path.

    Raises InputError if the name is unknown, or the file is missing or not as `read_npz` needs it.
    """
    if name in DATASETS:
        return DATASETS[name]
    if not str(name).endswith(".npz"):
        check_choice("dataset", name, (*DATASETS, "the path of an .npz"))
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"dataset is {name!r}, but there is no such file")
    stat = path.stat()
    return _npz_info(str(path), stat.st_mtime_ns, stat.st_size)


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
            lacking = [name for name in names if name not in archive]
            arrays = {name: archive[name] for name in names if name not in lacking}
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a damaged file
        raise InputError(f"dataset {path!r} is not a plain .npz archive ({error})") from error
    if lacking:
        raise InputError(f"dataset {path!r} lacks {', '.join(lacking)}; it must hold {', '.join(names)}")
    x_train, y_train = arrays["x_train"], arrays["y_train"]
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.ndim < 2 or len(x) == 0 or y.shape != x.shape[:1] or x.shape[1:] != x_train.shape[1:]:
            raise InputError(f"dataset {path!r}: x_{part} is {x.shape} and y_{part} {y.shape}; they must match")
        if x.dtype.kind not in "uif" or x.dtype != x_train.dtype or not (abs(x) <= np.finfo(np.float32).max).all():
            raise InputError(f"dataset {path!r}: x_{part} must hold finite numbers of one type, not {x.dtype}")
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() > y_train.max():
            raise InputError(f"dataset {path!r}: y_{part} must hold whole numbers from 0 to y_train's largest")
    return [arrays[name] for name in names]


def schedule_name(epochs: float, lr: float) -> str:
    """The name: "full" is the paper's 50 epochs at 1e-3; "flow10" a tenth of the steps at ten times the rate."""
    return {(50.0, 0.001): "full", (5.0, 0.01): "flow10"}.get((epochs, lr), f"{epochs:g} epochs at {lr:g}")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training, described in full: its key is its name. Checked on construction (InputError).

    `depth` counts weight matrices (2 = one hidden layer). `power` belongs to init "power" (every std is
    width**-power), `gain` to init "gain". `alpha` divides the output. `n_train` keeps the first n training points.
    `target` is "class", or "parity" for one output: +1 for odd classes, -1 for even, under squared loss.
    `epochs` may be a fraction; the rate is `lr`, times 128/width under lr_rule "inverse_width", times `lr_decay`
    at each of `milestones` (fractions of training). `stop_loss` ends training at the first of the 50 instants with
    a training loss at or below it. Stability is measured on the first `points` test points of a fixed shuffle.
    """

    width: int
    depth: int
    seed: int = 0
    model: str = "fcn"
    init: str = "he"
    power: float | None = None
    gain: float | None = None
    alpha: float = 1.0
    bias: bool = False
    head: str | None = None
    dataset: str = "digits"
    scaling: str = "raw"
    n_train: int | None = None
    target: str = "class"
    loss: str = "cross_entropy"
    epochs: float = 50.0
    batch_size: int = 64
    lr: float = 0.001
    lr_rule: str = "fixed"
    milestones: tuple[float, ...] = (0.5, 0.7, 0.9)
    lr_decay: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    augment: str = "none"
    stop_loss: float | None = None
    precision: str = "float32"
    points: int = 1000

    def __new__(cls, **fields):
        for name in fields:
            if name not in cls.__dataclass_fields__:
                check_choice("a field of Cell", name, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self):
        def number(name, **limits):
            object.__setattr__(self, name, check_number(name, getattr(self, name), **limits))

        if not isinstance(self.dataset, (str, os.PathLike)):
            raise InputError(f"dataset is {self.dataset!r}, but must be one of {', '.join(DATASETS)}, or an .npz")
        object.__setattr__(self, "dataset", os.fspath(self.dataset))
        check_choice("model", self.model, NUMERICS)
        check_choice("init", self.init, INITS)
        check_choice("scaling", self.scaling, ("raw", "unit", "standard"))
        check_choice("target", self.target, ("class", "parity"))
        check_choice("loss", self.loss, ("cross_entropy", "squared"))
        check_choice("lr_rule", self.lr_rule, ("fixed", "inverse_width"))
        check_choice("augment", self.augment, ("none", "crop_flip") if self.model == "resnet" else ("none",))
        check_choice("precision", self.precision, ("float32", "tf32", "float64"))
        check_choice("head", self.head, ("pooling", "flatten") if self.model == "cnn" else (None,))
        check_choice("bias", self.bias, (False,))
        object.__setattr__(self, "bias", False)
        number("width", low=1, integer=True)
        number("depth", low=2, integer=True)
        number("seed", low=0, integer=True)
        number("power", optional=self.init != "power")
        number("gain", above=0, optional=self.init != "gain")
        for name in ("power", "gain"):
            if getattr(self, name) is not None and self.init != name:
                raise InputError(f"{name} is {getattr(self, name)!r}, but init is {self.init!r}: it must be None")
        number("alpha", above=0)
        number("epochs", above=0)
        number("batch_size", low=1, integer=True)
        number("lr", above=0)
        number("lr_decay", above=0, high=1)
        number("momentum", low=0, high=1)
        number("weight_decay", low=0)
        number("stop_loss", above=0, optional=True)
        number("points", low=1, integer=True)
        if not isinstance(self.milestones, (tuple, list)):
            raise InputError(f"milestones is {self.milestones!r}, but must be a tuple of fractions of training")
        fractions = tuple(check_number("milestones", m, above=0, high=1) for m in self.milestones)
        if list(fractions) != sorted(set(fractions)):
            raise InputError(f"milestones is {self.milestones!r}, but must rise strictly")
        object.__setattr__(self, "milestones", fractions)
        data = dataset_info(self.dataset)
        number("n_train", low=1, high=data.n_train, integer=True, optional=True)
        if self.target == "parity" and self.loss != "squared":
            raise InputError(f"target is 'parity', but loss is {self.loss!r}: it must be 'squared'")
        if self.batch_size > self.train_points:
            raise InputError(
                f"batch_size is {self.batch_size}, but must be at most the {self.train_points} training points"
            )

    @property
    def train_points(self) -> int:
        """Training points used."""
        return self.n_train or dataset_info(self.dataset).n_train

    @property
    def d_in(self) -> int:
        """Input dimension d."""
        return math.prod(dataset_info(self.dataset).shape)

    @property
    def d_out(self) -> int:
        """Output dimension o."""
        return 1 if self.target == "parity" else dataset_info(self.dataset).classes

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch; the last, small batch is kept."""
        return math.ceil(self.train_points / self.batch_size)

    @property
    def steps(self) -> int:
        """SGD steps in all, at least one."""
        return max(1, round(self.epochs * self.steps_per_epoch))

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, .., steps - 1."""
        scale = 128 / self.width if self.lr_rule == "inverse_width" else 1.0
        passed = sum(step >= round(m * self.steps) for m in self.milestones)
        return self.lr * scale * self.lr_decay**passed

    @property
    def flow_time(self) -> float:
        """Sum of the rates over all steps: the time t of gradient flow that training approximates."""
        edges = [0, *(round(m * self.steps) for m in self.milestones), self.steps]
        return sum((b - a) * self.rate(a) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a)

    @property
    def schedule(self) -> str:
        """The schedule's name; see `schedule_name`."""
        return schedule_name(self.epochs, self.lr)

    @property
    def parameters(self) -> int:
        """Number of weights of a fully connected net: d m + (L-2) m^2 + m o."""
        return self.width * (self.d_in + (self.depth - 2) * self.width + self.d_out)

    @property
    def flops(self) -> float:
        """Operations of training a fully connected net: 6 a weight and point (2 forward, 4 backward)."""
        return 6.0 * self.parameters * self.train_points * self.steps / self.steps_per_epoch

    @property
    def key(self) -> str:
        """SHA-256 of all fields in canonical JSON, the dataset by its content, and the family's NUMERICS."""
        fields = dataclasses.asdict(self) | {
            "dataset": dataset_info(self.dataset).sha256,
            "numerics": NUMERICS[self.model],
        }
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
