"""Each network against the same one written otherwise, its gradients, and its randomness."""

import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SHAPES_CHECKED

from robustkit.cell import Cell, InputError
from robustkit.data import stream_generator
from robustkit.initialization import cnn_stds, layer_stds, resnet_std
from robustkit.networks import CNN, FCN, ResNet, build

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
        ({"generator": [None, None]}, "generator has 2 entries, but must have 4, one per layer"),
    ],
)
def test_bad_arguments_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        FCN(**(SHAPE | change))


# ------------------------------------------------------------------------------------------------ CNN


def cnn_by_hand(net, x, head):
    """Each convolution as a product with the patches of 3x3 pixels."""
    *kernels, last = net.weights
    for number, kernel in enumerate(kernels):
        stride = 2 if number in (1, 3) else 1
        patches = F.unfold(x, 3, padding=1, stride=stride)  # (n, 9 channels, positions)
        side = -(-x.shape[2] // stride), -(-x.shape[3] // stride)
        x = (kernel.flatten(1) @ patches).clamp(min=0).unflatten(2, side)
    return (x.flatten(2).mean(2) if head == "pooling" else x.flatten(1)) @ last.T


@pytest.mark.parametrize("head", ["pooling", "flatten"])
@pytest.mark.parametrize(("depth", "side"), [(2, 8), (3, (5, 7)), (4, 28), (6, 9), (10, 8)])
def test_the_cnn_is_products_with_patches(head, depth, side):
    net = CNN(width=5, depth=depth, d_out=3, in_channels=2, side=side, head=head, generator=seeded()).double()
    x = torch.randn(4, 2, *(side if isinstance(side, tuple) else (side, side)), generator=seeded(1)).double()
    assert torch.allclose(net(x), cnn_by_hand(net, x, head), rtol=1e-12, atol=1e-13)
    assert len(net.weights) == depth == len(list(net.parameters()))
    assert torch.allclose(net(3 * x), 3 * net(x), rtol=1e-12)  # no bias, no normalisation


@pytest.mark.parametrize("init", [{"init": "he"}, {"init": "lecun"}, {"init": "power", "power": 1.5}], ids=str)
def test_the_spread_of_a_cnns_weights(init):
    net = CNN(width=64, depth=4, d_out=10, head="flatten", **init, generator=seeded())
    fan_ins = [9, 9 * 64, 9 * 64, 64 * 14 * 14]
    assert cnn_stds(width=64, fan_ins=fan_ins, **init) == pytest.approx(
        [64**-1.5] * 4 if "power" in init else [((2 if init["init"] == "he" else 1) / n) ** 0.5 for n in fan_ins]
    )
    for weight, std in zip(net.weights, cnn_stds(width=64, fan_ins=fan_ins, **init), strict=True):
        # A sample standard deviation of n normals has a standard error of std/sqrt(2n).
        assert weight.std().item() == pytest.approx(std, rel=5 / (2 * weight.numel()) ** 0.5)


# ------------------------------------------------------------------------------------------------ ResNet


def their_resnet(depth, width, channels, classes):
    """The same network from torchvision's basic blocks."""
    from torch import nn
    from torchvision.models.resnet import BasicBlock

    blocks, before = [], width
    for stage in range(3):
        for number in range((depth - 2) // 6):
            after, stride = width * 2**stage, 2 if stage and not number else 1
            cut = nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            blocks.append(BasicBlock(before, after, stride, nn.Sequential(*cut) if before != after else None))
            before = after
    stem = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


@pytest.mark.parametrize(("depth", "channels", "side"), [(8, 1, 8), (14, 3, 32), (20, 1, 28)])
@pytest.mark.parametrize("training", [True, False])
def test_the_resnet_is_that_of_torchvisions_blocks(depth, channels, side, training):
    ours = ResNet(depth=depth, d_out=10, in_channels=channels, base_width=4, generator=seeded()).double()
    theirs = their_resnet(depth, 4, channels, 10).double()
    names = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)  # defined in the same order
    theirs.load_state_dict(dict(names))
    x = torch.randn(6, channels, side, side, generator=seeded(1)).double()
    ours.train(training), theirs.train(training)
    assert torch.allclose(ours(x), theirs(x), rtol=1e-10, atol=1e-12)
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-10)  # the running statistics too


@pytest.mark.parametrize("init", ["he", "power"])
def test_the_spread_of_a_resnets_weights(init):
    own = {"init": init, "power": 2.0 if init == "power" else None}
    net = ResNet(depth=8, d_out=100, base_width=32, **own, generator=seeded())
    *kernels, linear = net.weights
    for weight in kernels:
        fans = {"fan_in": weight[0].numel(), "fan_out": weight[:, 0].numel()}
        std = resnet_std(**own, **fans)
        assert std == pytest.approx((2 / fans["fan_out"]) ** 0.5 if init == "he" else fans["fan_in"] ** -2.0)
        assert weight.std().item() == pytest.approx(std, rel=5 / (2 * weight.numel()) ** 0.5)
    if init == "he":  # uniform: below its limit of 1/sqrt(128), and close to it
        assert 0.99 < linear.abs().max() * 128**0.5 <= 1 and net.linear.bias.abs().max() * 128**0.5 <= 1
    else:
        assert linear.std().item() == pytest.approx(128**-2, rel=0.05) and not net.linear.bias.any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("model", ["cnn", "resnet"])
def test_gradients_are_those_of_small_differences(model, training):
    fields = {"cnn": {"depth": 4, "head": "flatten"}, "resnet": {"depth": 8}}[model]
    net = build(Cell(model=model, width=3, **fields)).double().train(training)
    x = torch.randn(5, 1, 8, 8, generator=seeded(1)).double()
    F.cross_entropy(net(x), torch.arange(5)).backward()
    for parameter in net.parameters():
        direction = torch.randn(parameter.shape, generator=seeded(2)).double()
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter += step * direction
                values.append(F.cross_entropy(net(x), torch.arange(5)).item())
                parameter -= step * direction
        slope = (parameter.grad * direction).sum().item()
        # Central differences: 1e-16 / 1e-6 of rounding; the ReLU's kinks are met with a probability of some 1e-4.
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("fields", [{"model": "cnn", "depth": 4, "head": "pooling"}, {"model": "resnet", "depth": 8}])
def test_a_seed_is_one_network_of_any_model(fields, poisoned_seeds):
    nets = []
    for seed in (0, 0, 1):
        poisoned_seeds(seed + len(nets))
        nets.append(build(Cell(width=4, seed=seed, **fields)))
    same = [[torch.equal(a, b) for a, b in zip(nets[0].weights, net.weights, strict=True)] for net in nets[1:]]
    assert all(same[0]) and not any(same[1])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CNN(width=8, depth=4, d_out=2, head="pool"), "head is 'pool'.*did you mean 'pooling'"),
        (lambda: CNN(width=8, depth=4, d_out=2, side=0), "side is 0, but must be an integer and at least 1"),
        (lambda: CNN(width=8, depth=4, d_out=2, side=(5,)), r"side is \(5,\)"),
        (lambda: CNN(width=8, depth=1, d_out=2), "depth is 1, but must be an integer and at least 2"),
        (lambda: CNN(width=8, depth=4, d_out=2, init="ntk"), "init is 'ntk', but must be one of he, lecun, power"),
        (lambda: CNN(width=8, depth=4, d_out=2, power=2.0), "power is 2.0, but init is 'he'"),
        (lambda: CNN(width=8, depth=4, d_out=2, init="power"), "power is None"),
        (lambda: ResNet(depth=100, d_out=2), r"depth is 100, but must be 6n \+ 2"),
        (lambda: ResNet(depth=8, d_out=0), "d_out is 0"),
        (lambda: ResNet(depth=8, d_out=2, init="lecun"), "init is 'lecun', but must be one of he, power"),
        (lambda: ResNet(depth=8, d_out=2, generator=[seeded()]), "generator has 1 entries, but must have 10"),
        (lambda: Cell(model="resnet", width=4, depth=9), r"depth is 9, but must be 6n \+ 2 for a ResNet"),
        (lambda: Cell(model="resnet", width=4, depth=2), "depth is 2"),
        (lambda: Cell(model="resnet", width=4, depth=8, init="ntk"), "init of a resnet is 'ntk'"),
        (lambda: Cell(model="cnn", width=4, depth=4), "head is None, but must be one of pooling, flatten"),
        (lambda: Cell(model="cnn", width=4, depth=4, head="flatten", alpha=2), "alpha is 2.0, but must be 1"),
    ],
)
def test_a_bad_cnn_or_resnet_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_points_that_are_no_images_are_refused(write_npz):
    with pytest.raises(InputError, match="model is 'cnn', but the points of .* are no images"):
        Cell(model="cnn", head="pooling", width=4, depth=4, dataset=write_npz(), batch_size=4)


def test_a_resnet_may_be_trained_by_several_threads_on_a_batch_that_they_do_not_divide():
    """In a process of its own: a strided 1x1 convolution of torch's corrupts memory here, if the shortcut has one."""
    script = (
        "import torch; from robustkit.networks import ResNet; torch.set_num_threads(3)\n"
        "net = ResNet(depth=8, d_out=10, base_width=4).to(memory_format=torch.channels_last)\n"
        "for _ in range(20):\n"
        "    x = torch.rand(4, 3, 32, 32).to(memory_format=torch.channels_last)\n"
        "    net(x).square().sum().backward()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
