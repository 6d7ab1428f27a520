"""A reproducible companion to "Robustness in deep learning: The good (width), the bad (depth), and the ugly"."""

# from . import theory
from .config import Cell, InputError
from .data import load_dataset
from .initialization import layer_stds
from .networks import FCN
from .profiles import grid, profile_cells
from .stability import Estimate, expected_norm, perturbation_stability, sample_ball
from .sweep import load, run
from .training import lazy_ratio

__all__ = [
    *("Cell", "Estimate", "FCN", "InputError", "expected_norm", "grid", "layer_stds", "lazy_ratio", "load"),
    *("load_dataset", "perturbation_stability", "profile_cells", "run", "sample_ball", "theory"),
]
