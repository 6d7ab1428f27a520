"""The standard deviations against Table 1 written out, and against the weights of real networks."""

import math

import pytest
import torch

from robustkit.cell import InputError
from robustkit.initialization import layer_stds
from robustkit.networks import FCN

# Three different sizes, so that fan-in and fan-out cannot be mistaken for one another.
SHAPE = {"width": 50, "depth": 4, "d_in": 20, "d_out": 7}
SCHEMES = [
    ({"init": "he"}, [math.sqrt(2 / 20), math.sqrt(2 / 50), math.sqrt(2 / 50), math.sqrt(2 / 50)]),
    ({"init": "lecun"}, [math.sqrt(1 / 20), math.sqrt(1 / 50), math.sqrt(1 / 50), math.sqrt(1 / 50)]),
    ({"init": "ntk"}, [math.sqrt(2 / 50), math.sqrt(2 / 50), math.sqrt(2 / 50), math.sqrt(1 / 7)]),
    ({"init": "power", "power": 2}, [1 / 2500, 1 / 2500, 1 / 2500, 1 / 2500]),
    ({"init": "power", "power": 0.5}, [1 / math.sqrt(50)] * 4),
    ({"init": "gain", "gain": 3}, [3 * math.sqrt(0.1), 3 * 0.2, 3 * 0.2, 3 * 0.2]),
]


@pytest.mark.parametrize(("scheme", "stds"), SCHEMES)
def test_table_1(scheme, stds):
    assert layer_stds(**scheme, **SHAPE) == pytest.approx(stds, rel=1e-14)


def test_one_hidden_layer():
    shape = SHAPE | {"depth": 2}
    assert layer_stds("he", **shape) == pytest.approx([math.sqrt(2 / 20), math.sqrt(2 / 50)], rel=1e-14)
    assert layer_stds("ntk", **shape) == pytest.approx([math.sqrt(2 / 50), math.sqrt(1 / 7)], rel=1e-14)


def test_a_gain_of_one_is_he():
    assert layer_stds("gain", gain=1.0, **SHAPE) == layer_stds("he", **SHAPE)


@pytest.mark.parametrize(("scheme", "stds"), SCHEMES)
def test_the_weights_of_a_network_have_these_deviations(scheme, stds):
    net = FCN(**scheme, **SHAPE, generator=torch.Generator().manual_seed(1))
    for weight, std in zip(net.weights, stds, strict=True):
        entries = weight.detach().double().flatten()
        n = len(entries)
        # The deviation about zero of n normals has standard error std/sqrt(2n), their mean std/sqrt(n).
        assert abs(entries.square().mean().sqrt().item() / std - 1) < 4 / math.sqrt(2 * n)
        assert abs(entries.mean().item()) < 4 * std / math.sqrt(n)
        assert abs((entries / std).pow(4).mean().item() - 3) < 4 * math.sqrt(96 / n)  # normal: E z^4 = 3, var 96


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"init": "Ntk"}, "init is 'Ntk'.*did you mean 'ntk'"),
        ({"width": 0}, "width is 0"),
        ({"width": 2.5}, "width is 2.5"),
        ({"depth": 1}, "depth is 1, but must be an integer and at least 2"),
        ({"d_in": 0}, "d_in is 0"),
        ({"d_out": True}, "d_out is True"),
        ({"power": 2.0}, "power is 2.0, but init is 'he'"),
        ({"gain": 2.0}, "gain is 2.0, but init is 'he'"),
        ({"init": "power"}, "power is None"),
        ({"init": "gain", "gain": -1}, "gain is -1"),
        (
            {"init": "gain", "gain": 1e200},
            "gain is 1e\\+200, but must be a finite number and above 0 and at most 1e\\+100",
        ),
        ({"init": "power", "power": -500}, "power is -500, but must be a finite number and at least -30"),
    ],
)
def test_bad_arguments_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        layer_stds(**({"init": "he"} | SHAPE | change))
