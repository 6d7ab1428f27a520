"""The fully connected network against Eq. (2) written out, and its randomness."""

import jaxtyping
import numpy as np
import pytest
import torch
from conftest import SHAPES_CHECKED

from robustkit.config import Cell, InputError
from robustkit.data import stream_generator
from robustkit.initialization import layer_stds
from robustkit.networks import FCN, build

pytestmark = pytest.mark.usefixtures("one_thread")  # small networks are faster on one

SHAPE = {"width": 7, "depth": 4, "d_in": 6, "d_out": 3}
SCHEMES = [
    {"init": "he"},
    {"init": "lecun"},
    {"init": "ntk"},
    {"init": "power", "power": 2.0},
    {"init": "gain", "gain": 1.3},
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def by_hand(weights, x, alpha=1.0):
    """Eq. (2) in float64."""
    h = np.asarray(x, np.float64).reshape(len(x), -1)
    *hidden, last = [w.detach().numpy().astype(np.float64) for w in weights]
    for w in hidden:
        h = np.maximum(np.einsum("oi,ni->no", w, h), 0)
    return np.einsum("oi,ni->no", last, h) / alpha


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s["init"])
@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize("alpha", [1.0, 2.5])
def test_the_network_is_equation_2(scheme, depth, alpha):
    net = FCN(**scheme, **(SHAPE | {"depth": depth}), alpha=alpha, generator=seeded(depth))
    assert [tuple(w.shape) for w in net.weights] == [(7, 6), *[(7, 7)] * (depth - 2), (3, 7)]
    x = torch.randn(11, 6, generator=seeded(1))
    expected = by_hand(net.weights, x, alpha)
    assert np.allclose(net.double()(x.double()).detach(), expected, rtol=1e-12, atol=1e-14 * abs(expected).max())


def test_there_is_no_bias():
    net = FCN(**SHAPE, generator=seeded()).double()
    x = torch.randn(5, 6, generator=seeded(1), dtype=torch.float64)
    assert len(list(net.parameters())) == len(net.weights) == 4
    assert torch.allclose(net(3 * x), 3 * net(x), rtol=1e-12)
    assert torch.equal(net(0 * x), torch.zeros(5, 3).double())


def test_images_are_flattened():
    net = FCN(**(SHAPE | {"d_in": 8}), generator=seeded())
    images = torch.randn(5, 2, 2, 2, generator=seeded(1))
    assert torch.equal(net(images), net(images.reshape(5, 8)))


def test_a_wrong_shape_is_caught():
    """With beartype the signature is checked at each call; without it torch itself complains of a lone axis."""
    net = FCN(**SHAPE, generator=seeded())
    with pytest.raises(jaxtyping.TypeCheckError if SHAPES_CHECKED else IndexError):
        net(torch.ones(6))
    with pytest.raises(jaxtyping.TypeCheckError if SHAPES_CHECKED else RuntimeError):
        net(torch.ones(5, 6, dtype=torch.int64))


# ------------------------------------------------------------------------------------------------ its randomness


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s["init"])
def test_one_seed_gives_the_same_normals_under_every_initialisation(scheme):
    he, other = (FCN(**s, **SHAPE, generator=seeded(5)) for s in ({"init": "he"}, scheme))
    stds = zip(layer_stds("he", **SHAPE), layer_stds(**scheme, **SHAPE), strict=True)
    for a, b, (std_a, std_b) in zip(he.weights, other.weights, stds, strict=True):
        assert torch.allclose(a / std_a, b / std_b, rtol=1e-6, atol=0)


def test_a_layers_own_generator_keeps_its_weights_whatever_the_depth():
    def net(depth):
        generators = [stream_generator(3, "weights", layer) for layer in range(depth)]
        return FCN(**(SHAPE | {"depth": depth}), generator=generators)

    shallow, deep = net(3), net(5)
    assert torch.equal(shallow.weights[0], deep.weights[0]) and torch.equal(shallow.weights[1], deep.weights[1])
    assert not torch.equal(deep.weights[1], deep.weights[2])


def test_seeds_0_to_4_are_five_networks():
    nets = [build(Cell(width=16, depth=3, seed=seed)) for seed in range(5)]
    for layer in range(3):
        weights = torch.stack([net.weights[layer].detach().flatten() for net in nets])
        assert len(weights.unique(dim=0)) == 5
        # Independent normals: the correlation of n pairs has standard error 1/sqrt(n).
        correlations = torch.corrcoef(weights)[*torch.triu_indices(5, 5, 1)]
        assert correlations.abs().max() < 4 / weights.shape[1] ** 0.5


def test_a_seed_is_one_network_whatever_the_global_seeds(poisoned_seeds):
    cell = Cell(width=16, depth=3, seed=2)
    poisoned_seeds(0)
    first = build(cell)
    poisoned_seeds(1)
    for a, b in zip(first.weights, build(cell).weights, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 0}, "width is 0"),
        ({"depth": 1}, "depth is 1"),
        ({"init": "hee"}, "init is 'hee'.*did you mean 'he'"),
        ({"alpha": 0}, "alpha is 0, but must be a finite number and above 0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"generator": [None, None]}, "generator has 2 entries, but depth 4 needs one a layer"),
    ],
)
def test_bad_arguments_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        FCN(**(SHAPE | change))


def test_a_model_that_is_not_written_yet_is_refused():
    with pytest.raises(InputError, match="model is 'resnet', which is not written yet"):
        build(Cell(width=16, depth=2, model="resnet"))
