"""A reproducible companion to "Robustness in deep learning: The good (width), the bad (depth), and the ugly"."""

from . import plots, theory
from . import plots as figures  # its old name
from .cell import Cell
from .checks import InputError
from .data import load_dataset
from .initialization import layer_stds
from .movement import lazy_ratio
from .networks import CNN, FCN, ResNet
from .profiles import grid, profile_cells
from .stability import Estimate, expected_norm, perturbation_stability, sample_ball
from .sweep.train_missing import collect, load, load_further, run
