"""The networks of the paper: FCN is its Eq. (2), CNN and ResNet are our readings of workshop E.4 and E.3."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .cell import Cell
from .checks import InputError, check_choice, check_number, check_sizes
from .data import stream_generator
from .initialization import cnn_stds, layer_stds, resnet_std
from .shapes import BLOCKS, STRIDED, layers_of


class FCN(nn.Module):
    """Fully connected ReLU network, h_l = relu(W_l h_{l-1}), f(x) = W_L h_{L-1} / alpha.

    `depth` is L, the number of weight matrices; `.weights` lists W_1 .. W_L as (fan_out, fan_in) parameters, each
    entry drawn from N(0, beta_l^2) with beta from `layer_stds`. `generator` is one torch.Generator for all layers,
    or a list of one per layer. One seed and shape give the same normals under every initialisation.
    Raises InputError on a bad argument. Source: NeurIPS Eq. (2) (workshop Eq. (1)).
    """

    def __init__(self, *, width, depth, d_in, d_out, init="he", power=None, gain=None, alpha=1.0, generator=None):
        super().__init__()
        stds = layer_stds(init, width=width, depth=depth, d_in=d_in, d_out=d_out, power=power, gain=gain)
        self.alpha = check_number("alpha", alpha, above=0)
        generators = _one_per_layer(generator, len(stds))
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


class CNN(nn.Module):
    """L - 1 convolutions (3x3, padding 1, no bias, ReLU; stride 2 at the second and fourth), then a linear head.

    head: "pooling" averages each channel over the image first, "flatten" keeps every pixel. `.weights` lists the L
    weights, (width, channels, 3, 3) and last (d_out, fan_in), of N(0, beta_l^2) with beta from `cnn_stds`. `width`
    counts channels; `side` is that of the square images, or (height, width), and matters to "flatten" alone.
    `generator` as in FCN. Raises InputError on a bad argument.
    Source: workshop E.4, Figure 6, which names neither head, stride nor normalisation: both heads are readings.
    """

    def __init__(
        self, *, width, depth, d_out, in_channels=1, side=28, head="pooling", init="he", power=None, generator=None
    ):
        super().__init__()
        check_choice("head", head, ("pooling", "flatten"))
        width, depth, d_out = check_sizes(width=width, depth=depth, d_out=d_out)
        sides = side if isinstance(side, (tuple, list)) and len(side) == 2 else (side, side)
        shape = *check_sizes(in_channels=in_channels), *(check_sizes(side=side)[0] for side in sides)
        layers = layers_of("cnn", width=width, depth=depth, shape=shape, d_out=d_out, head=head)
        stds = cnn_stds(init, width=width, fan_ins=[layer.fan_in for layer in layers], power=power)
        self.head, self.weights = head, nn.ParameterList()
        for number, (std, layer, g) in enumerate(zip(stds, layers, _one_per_layer(generator, depth), strict=True)):
            kernel = (layer.fan_in // 9, 3, 3) if number < depth - 1 else (layer.fan_in,)
            self.weights.append(std * torch.randn(layer.fan_out, *kernel, generator=g))

    def forward(self, x: Float[Tensor, " batch channels height width"]) -> Float[Tensor, " batch d_out"]:
        """Logits of a batch of images."""
        for number, weight in enumerate(self.weights[:-1]):
            x = torch.relu(functional.conv2d(x, weight, padding=1, stride=2 if number in STRIDED else 1))
        return (x.mean((2, 3)) if self.head == "pooling" else x.flatten(1)) @ self.weights[-1].T


class ResNet(nn.Module):
    """The CIFAR residual network: 6n + 2 = depth layers, three stages of n basic blocks, batch normalisation.

    A stem (3x3), then n blocks of two 3x3 convolutions with `base_width`, twice and four times as many channels; a
    stage after the first halves the image, and its first shortcut is a 1x1 convolution; average pooling, a linear
    layer with bias. Depth 110, width 16 and 10 classes: 1 730 714 parameters. `.weights` lists the weights of all
    convolutions and of the linear layer, without the parameters of normalisation and the bias.
    init "he" takes `resnet_std`, the linear layer uniform in +-1/sqrt(fan_in) as torch has it; "power" draws every
    weight from N(0, fan_in^(-2 power)), the bias 0. Batch normalisation undoes a scale, as long as the variance
    it sees is large beside its constant 1e-5.
    `generator` as in FCN, one per entry of `.weights` if it is a list. Raises InputError on a bad argument.
    Source: workshop E.3, Table 4, by the recipe that it links to.
    """

    def __init__(self, *, depth=110, d_out, in_channels=3, base_width=16, init="he", power=None, generator=None):
        super().__init__()
        depth, d_out = check_sizes(depth=depth, d_out=d_out)
        in_channels, base_width = check_sizes(in_channels=in_channels, base_width=base_width)
        if depth < 8 or depth % 6 != 2:
            raise InputError(f"depth is {depth}, but must be 6n + 2: 8, 14, 20, .., 110")
        self.stem = _normalised(in_channels, base_width, 3, 1)
        blocks, before = [], base_width
        for stage in range(BLOCKS):
            for number in range((depth - 2) // 6):
                after, stride = base_width * 2**stage, 2 if stage and not number else 1
                blocks.append(_Block(before, after, stride))
                before = after
        self.blocks, self.linear = nn.Sequential(*blocks), nn.Linear(before, d_out)
        self.weights = [p for p in self.parameters() if p.ndim > 1]
        with torch.no_grad():
            for weight, g in zip(self.weights, _one_per_layer(generator, len(self.weights)), strict=True):
                self._draw(weight, init, power, g)

    def _draw(self, weight: Tensor, init: str, power, generator) -> None:
        fan_out, fan_in = len(weight) * weight[0, 0].numel(), weight[0].numel()
        std = resnet_std(init, fan_in=fan_in, fan_out=fan_out, power=power)
        if weight.ndim == 4 or init == "power":
            weight.copy_(std * torch.randn(weight.shape, generator=generator))
            self.linear.bias.zero_()
        else:
            for part in (weight, self.linear.bias):
                part.copy_((2 * torch.rand(part.shape, generator=generator) - 1) / math.sqrt(fan_in))

    def forward(self, x: Float[Tensor, " batch channels height width"]) -> Float[Tensor, " batch d_out"]:
        """Logits of a batch of images."""
        return self.linear(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.first, self.second = _normalised(before, after, 3, stride), _normalised(after, after, 3, 1)
        self.shortcut, self.stride = _normalised(before, after, 1, 1) if before != after else nn.Identity(), stride

    def forward(self, x: Tensor) -> Tensor:
        # The stride by indexing: on the CPU, torch's backward of a strided 1x1 convolution over channels-last images
        # writes past its buffers when several threads share a batch that they do not divide.
        kept = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(kept))


def _normalised(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after))


def _one_per_layer(generator, count: int) -> list:
    generators = list(generator) if isinstance(generator, (list, tuple)) else [generator] * count
    if len(generators) != count:
        raise InputError(f"generator has {len(generators)} entries, but must have {count}, one per layer")
    return generators


def build(cell: Cell) -> FCN | CNN | ResNet:
    """The network of a cell as initialised from its seed, on the CPU, in float32."""
    own = {name: getattr(cell, name) for name in ("width", "depth", "d_out", "init", "power")}
    own["generator"] = [stream_generator(cell.seed, "weights", layer) for layer in range(len(cell.layers))]
    if cell.model == "fcn":
        return FCN(**own, d_in=cell.d_in, gain=cell.gain, alpha=cell.alpha)
    channels, *side = cell.data.shape
    if cell.model == "cnn":
        return CNN(**own, in_channels=channels, side=side, head=cell.head)
    return ResNet(base_width=own.pop("width"), in_channels=channels, **own)
