"""A reproducible companion to "Robustness in deep learning: The good (width), the bad (depth), and the ugly"."""

import importlib

from .cell import Cell
from .checks import InputError
from .initialization import layer_stds
from .profiles import grid, profile_cells

# Loaded when first asked for, since PyTorch and Matplotlib take seconds: name -> the module that defines it.
_LATER = {
    "load_dataset": "data",
    "lazy_ratio": "movement",
    **dict.fromkeys(("CNN", "FCN", "ResNet"), "networks"),
    "compare": "comparison",
    "perturbation_stability": "progress",
    **dict.fromkeys(("Estimate", "expected_norm", "sample_ball"), "stability"),
    **dict.fromkeys(("collect", "load", "load_further", "run"), "sweep.train_missing"),
}
COMPANION_TO = "arXiv:2209.07263"  # by this the notebooks tell this package from another of its name
_MODULES = {name: name for name in ("infinite_width", "plots", "theory")} | {"figures": "plots"}  # its old name


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_MODULES})
