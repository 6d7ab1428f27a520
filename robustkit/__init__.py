"""A reproducible companion to "Robustness in deep learning: The good (width), the bad (depth), and the ugly"."""

from . import plots as figures  # noqa: F401  its old name
from . import plots as plots
from . import theory as theory
from .cell import Cell as Cell
from .checks import InputError as InputError
from .data import load_dataset as load_dataset
from .initialization import layer_stds as layer_stds
from .movement import lazy_ratio as lazy_ratio
from .networks import CNN as CNN
from .networks import FCN as FCN
from .networks import ResNet as ResNet
from .profiles import grid as grid
from .profiles import profile_cells as profile_cells
from .stability import Estimate as Estimate
from .stability import expected_norm as expected_norm
from .stability import perturbation_stability as perturbation_stability
from .stability import sample_ball as sample_ball
from .sweep.train_missing import collect as collect
from .sweep.train_missing import load as load
from .sweep.train_missing import load_further as load_further
from .sweep.train_missing import run as run
