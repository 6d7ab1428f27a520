"""The layers of each network as sizes, from which parameters and operations are counted and modules are built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

STRIDED = (1, 3)  # the second and the fourth convolution of the CNN halve the image
BLOCKS = 3  # stages of the ResNet; each doubles the channels and, after the first, halves the image


class Layer(NamedTuple):
    """One layer: its weights are (fan_out, fan_in); it is applied at `positions` places of an image."""

    fan_in: int
    fan_out: int
    positions: int = 1
    others: int = 0  # parameters besides the weights: of batch normalisation, or a bias


def layers_of(model: str, *, width: int, depth: int, shape: Sequence[int], d_out: int, head=None) -> list[Layer]:
    """The layers of a network for points of this shape: (d,) or (channels, height, width)."""
    if model == "fcn":
        sizes = [math.prod(shape), *[width] * (depth - 1), d_out]
        return [Layer(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    return (_cnn if model == "cnn" else _resnet)(width, depth, tuple(shape), d_out, head)


def _cnn(width, depth, shape, d_out, head) -> list[Layer]:
    channels, high, wide = shape
    layers = []
    for number in range(depth - 1):
        if number in STRIDED:
            high, wide = _half(high, wide)
        layers.append(Layer(9 * (width if number else channels), width, high * wide))
    return [*layers, Layer(width * (high * wide if head == "flatten" else 1), d_out)]


def _resnet(width, depth, shape, d_out, _head) -> list[Layer]:
    channels, high, wide = shape
    layers = [Layer(9 * channels, width, high * wide, 2 * width)]
    before = width
    for stage in range(BLOCKS):
        m = width * 2**stage
        for block in range((depth - 2) // 6):
            if stage and not block:
                high, wide = _half(high, wide)
            convolutions = [9 * before, 9 * m] + ([before] if before != m else [])  # the last one is the shortcut
            layers += [Layer(fan_in, m, high * wide, 2 * m) for fan_in in convolutions]
            before = m
    return [*layers, Layer(before, d_out, others=d_out)]


def _half(*sides: int) -> list[int]:
    return [-(-side // 2) for side in sides]
