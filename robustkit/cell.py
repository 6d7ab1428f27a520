"""One run, described in full (Cell), and the names and evaluation points of what a row keeps of it; no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass

from .checks import InputError, check_choice, check_number, check_own
from .datasets import DATASETS, dataset_info
from .shapes import Layer, layers_of

# Raise a family's number when an edit changes what its runs measure: its old rows then stop matching.
NUMERICS = {"fcn": 1, "cnn": 1, "resnet": 1}

INITS = ("he", "lecun", "ntk", "power", "gain")
INITS_OF = {"fcn": INITS, "cnn": ("he", "lecun", "power"), "resnet": ("he", "power")}

# The evaluation points, as fractions of a run: of loss and kappa, and of stability and movement.
EVALUATION_POINTS = tuple(k / 50 for k in range(51))
FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

# Fields that came after rows had been kept, with the value that those rows were trained under.
ADDED = {"stop_every": None}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run, described in full; its key names it. Checked on construction (InputError).

    `depth` counts weight matrices (2 = one hidden layer). `power` belongs to init "power" (every std is
    width**-power), `gain` to init "gain". `alpha` divides the output. `n_train` keeps the first n training points.
    `target` is "class", or "parity" for one output: +1 for odd classes, -1 for even, under squared loss.
    `epochs` may be a fraction; the learning rate is `lr`, times 128/width under lr_rule "inverse_width", times
    `lr_decay` at each of `milestones` (fractions of the run). `stop_loss` ends the run at the first of
    EVALUATION_POINTS, or of every `stop_every` steps, with a training loss at or below it. Stability is measured on
    the first `points` test points of a fixed shuffle, or on all where there are fewer.
    model "cnn" has `width` channels and a `head` ("pooling" or "flatten"); "resnet" has `width` channels in its first
    stage, depth 6n + 2, and may `augment` ("crop_flip").
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
    stop_every: int | None = None

    def __new__(cls, **fields):
        for name in fields:
            if name not in cls.__dataclass_fields__:
                check_choice("a field of Cell", name, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __deepcopy__(self, memo):
        return self  # it is frozen, and pandas copies the missing cells of a frame at every step

    def __post_init__(self):
        def number(name, **limits):
            object.__setattr__(self, name, check_number(name, getattr(self, name), **limits))

        if not isinstance(self.dataset, (str, os.PathLike)):
            raise InputError(f"dataset is {self.dataset!r}, but must be one of {', '.join(DATASETS)}, or an .npz")
        object.__setattr__(self, "dataset", os.fspath(self.dataset))
        check_choice("model", self.model, NUMERICS)
        check_choice("init" if self.model == "fcn" else f"init of a {self.model}", self.init, INITS_OF[self.model])
        check_choice("scaling", self.scaling, ("raw", "unit", "standard"))
        check_choice("target", self.target, ("class", "parity"))
        check_choice("loss", self.loss, ("cross_entropy", "squared"))
        check_choice("lr_rule", self.lr_rule, ("fixed", "inverse_width"))
        check_choice("augment", self.augment, ("none", "crop_flip") if self.model == "resnet" else ("none",))
        check_choice("precision", self.precision, ("float32", "tf32", "float64"))
        check_choice("head", self.head, ("pooling", "flatten") if self.model == "cnn" else (None,))
        check_choice("bias", self.bias, (False,))
        object.__setattr__(self, "bias", False)
        # Beyond these limits a plan could not print sizes and times.
        number("width", low=1, high=10**9, integer=True)
        number("depth", low=2, high=10**4, integer=True)
        number("seed", low=0, integer=True)
        object.__setattr__(self, "power", check_own("power", self.power, self.init))
        object.__setattr__(self, "gain", check_own("gain", self.gain, self.init))
        number("alpha", above=0)
        if self.model != "fcn" and self.alpha != 1:
            raise InputError(f"alpha is {self.alpha!r}, but must be 1 for model {self.model!r}")
        if self.model == "resnet" and (self.depth < 8 or self.depth % 6 != 2):
            raise InputError(f"depth is {self.depth}, but must be 6n + 2 for a ResNet: 8, 14, 20, .., 110")
        number("epochs", above=0, high=10**6)
        number("batch_size", low=1, integer=True)
        number("lr", above=0)
        number("lr_decay", above=0, high=1)
        number("momentum", low=0, high=1)
        number("weight_decay", low=0)
        number("stop_loss", above=0, optional=True)
        number("stop_every", low=1, integer=True, optional=True)
        if self.stop_every and not self.stop_loss:
            raise InputError(f"stop_every is {self.stop_every}, but stop_loss is None: it must be None too")
        number("points", low=1, high=10**9, integer=True)
        if not isinstance(self.milestones, (tuple, list)):
            raise InputError(f"milestones is {self.milestones!r}, but must be a tuple of fractions of the run")
        fractions = tuple(check_number("milestones", m, above=0, high=1) for m in self.milestones)
        if list(fractions) != sorted(set(fractions)):
            raise InputError(f"milestones is {self.milestones!r}, but must rise strictly")
        object.__setattr__(self, "milestones", fractions)
        data = dataset_info(self.dataset)
        object.__setattr__(self, "data", data)  # no field: the runs on what a file held do not ask what it holds now
        if self.model != "fcn" and len(data.shape) != 3:
            no_images = f"but the points of {self.dataset!r} are no images: {data.shape}"
            raise InputError(f"model is {self.model!r}, {no_images}")
        number("n_train", low=1, high=data.n_train, integer=True, optional=True)
        if self.target == "parity" and self.loss != "squared":
            raise InputError(f"target is 'parity', but loss is {self.loss!r}: it must be 'squared'")
        if self.batch_size > self.train_points:
            most = f"at most the {self.train_points} training points"
            raise InputError(f"batch_size is {self.batch_size}, but must be {most}")

    @property
    def train_points(self) -> int:
        """Training points used."""
        return self.n_train or self.data.n_train

    @property
    def d_in(self) -> int:
        """Input dimension d."""
        return math.prod(self.data.shape)

    @property
    def d_out(self) -> int:
        """Output dimension o."""
        return 1 if self.target == "parity" else self.data.classes

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch; the last, smaller batch is kept."""
        return math.ceil(self.train_points / self.batch_size)

    @property
    def steps(self) -> int:
        """SGD steps in all, at least one."""
        return max(1, round(self.epochs * self.steps_per_epoch))

    @property
    def stop_steps(self) -> frozenset[int]:
        """The steps before which `stop_loss` is compared with the training loss."""
        if not self.stop_loss:
            return frozenset()
        if self.stop_every:
            return frozenset(range(0, self.steps + 1, self.stop_every))
        return frozenset(round(fraction * self.steps) for fraction in EVALUATION_POINTS)

    def learning_rate(self, step: int) -> float:
        """Learning rate of step 0, 1, .., steps - 1."""
        scale = 128 / self.width if self.lr_rule == "inverse_width" else 1.0
        passed = sum(step >= round(m * self.steps) for m in self.milestones)
        return self.lr * scale * self.lr_decay**passed

    @property
    def layers(self) -> list[Layer]:
        """The network's layers as sizes, from the input on."""
        sizes = {name: getattr(self, name) for name in ("model", "width", "depth", "d_out", "head")}
        return layers_of(**sizes, shape=self.data.shape)

    @property
    def parameters(self) -> int:
        """Number of parameters; of a fully connected network, d m + (L-2) m^2 + m o."""
        return sum(layer.fan_in * layer.fan_out + layer.others for layer in self.layers)

    @property
    def flops(self) -> float:
        """Operations of training: 6 per point and use of a weight (2 forward, 4 backward)."""
        products = sum(layer.fan_in * layer.fan_out * layer.positions for layer in self.layers)
        return 6.0 * products * self.train_points * self.steps / self.steps_per_epoch

    def as_dict(self) -> dict:
        """All fields by name; of those in ADDED, the ones that differ from what older rows were trained under."""
        return without_added(dataclasses.asdict(self))

    @property
    def key(self) -> str:
        """SHA-256 of all fields in canonical JSON, the dataset by its content, and the family's NUMERICS."""
        return key_of(self.as_dict(), self.data.sha256, NUMERICS[self.model])


# ------------------------------------------------------------------------------------------------ keys


def without_added(fields: dict) -> dict:
    """Fields of a cell without those in ADDED that older rows, which lack them, were trained under."""
    return {name: value for name, value in fields.items() if name not in ADDED or value != ADDED[name]}


def key_of(fields: dict, sha256: str, numerics: int) -> str:
    """The key of the cell of these fields (see `Cell.as_dict`), whose dataset has this content."""
    return _sha256(fields | {"dataset": sha256, "numerics": numerics})


def measure_key(cell_key: str, measure: str, version: int) -> str:
    """The key of a further measure of a cell."""
    return _sha256({"cell": cell_key, "measure": measure, "version": version})


def _sha256(fields: dict) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------ names in a row


def schedule_name(epochs: float, lr: float) -> str:
    """Name of a schedule: "full" is the paper's 50 epochs at 1e-3, "flow10" the short one, a tenth of it at 1e-2."""
    return {(50.0, 0.001): "full", (5.0, 0.01): "flow10"}.get((epochs, lr), f"{epochs:g} epochs at {lr:g}")


ATTACKS = ("fgsm", "pgd")
RADII = {"l2": (0.5, 1.0, 2.0), "linf": (0.02, 0.05, 0.1)}  # in the scaling of the points themselves


def column(attack: str, norm: str, radius: float) -> str:
    """The name under which a further measure keeps an accuracy under attack: accuracy_pgd_l2_0_5."""
    return f"accuracy_{attack}_{norm}_{radius:g}".replace(".", "_")
