"""The networks of the paper. FCN is its Eq. (2): no bias, ReLU, Gaussian weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .checks import InputError, check_number
from .config import Cell
from .data import stream_generator
from .initialization import layer_stds


class FCN(nn.Module):
    """Fully connected ReLU network, h_l = relu(W_l h_{l-1}), f(x) = W_L h_{L-1} / alpha.

    `depth` is L, the number of weight matrices; `.weights` lists W_1 .. W_L as (fan_out, fan_in) parameters, each
    entry drawn from N(0, beta_l^2) with beta from `layer_stds`. `generator` is one torch.Generator for all layers,
    or a list of one a layer. One seed and shape give the same normals under every initialisation.
    Raises InputError on a bad argument. Source: NeurIPS Eq. (2) (workshop Eq. (1)).
    """

    def __init__(self, *, width, depth, d_in, d_out, init="he", power=None, gain=None, alpha=1.0, generator=None):
        super().__init__()
        stds = layer_stds(init, width=width, depth=depth, d_in=d_in, d_out=d_out, power=power, gain=gain)
        self.alpha = check_number("alpha", alpha, above=0)
        generators = generator if isinstance(generator, (list, tuple)) else [generator] * len(stds)
        if len(generators) != len(stds):
            raise InputError(f"generator has {len(generators)} entries, but depth {depth} needs one a layer")
        sizes = [int(d_in), *[int(width)] * (len(stds) - 1), int(d_out)]
        self.weights = nn.ParameterList(
            std * torch.randn(fan_out, fan_in, generator=g)
            for std, fan_in, fan_out, g in zip(stds, sizes[:-1], sizes[1:], generators, strict=True)
        )

    def forward(self, x: Float[Tensor, " batch dim *more"]) -> Float[Tensor, " batch d_out"]:
        """Logits of a batch; images are flattened."""
        h = x.flatten(1)
        for weight in self.weights[:-1]:
            h = torch.relu(h @ weight.T)
        return h @ self.weights[-1].T / self.alpha


def build(cell: Cell) -> FCN:
    """The network of a cell as initialised from its seed, on the CPU, in float32."""
    if cell.model != "fcn":
        raise InputError(f"model is {cell.model!r}, which is not written yet; use fcn")
    generators = [stream_generator(cell.seed, "weights", layer) for layer in range(cell.depth)]
    shape = {
        name: getattr(cell, name) for name in ("width", "depth", "d_in", "d_out", "init", "power", "gain", "alpha")
    }
    return FCN(**shape, generator=generators)
