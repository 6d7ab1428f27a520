"""The plain loop against a backward pass written by hand in numpy, float64."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustkit.cell import Cell
from robustkit.data import load_dataset, stream_generator
from robustkit.movement import layer_movement, lazy_ratio
from robustkit.networks import build
from robustkit.training.cuda_graph import GraphedStep
from robustkit.training.loop import CropFlip, Loop, loss_function, targets

pytestmark = pytest.mark.usefixtures("one_thread")  # small networks are faster on one

# 23 points in batches of 4: six steps an epoch, the last of three points; 18 steps, the rate falling before 9 and 14.
SHORT = {
    **{"width": 6, "depth": 3, "n_train": 23, "batch_size": 4, "epochs": 3, "lr": 0.2},
    **{"milestones": (0.5, 0.75), "lr_decay": 0.3, "precision": "float64"},
}


def prepared(cell):
    data = load_dataset(cell.dataset, dtype=torch.float64)
    y = data.y_train[: cell.train_points]
    return build(cell).double(), data.x_train[: cell.train_points], y


def by_hand(weights, x, y, cell, until=None):
    """Weights after each step: gradients from the chain rule, momentum and weight decay as in torch's SGD."""
    weights = [w.detach().numpy().astype(np.float64) for w in weights]
    x, classes = x.flatten(1).numpy(), y.numpy()
    parity = np.where(classes % 2 == 1, 1.0, -1.0)[:, None]
    target = parity if cell.target == "parity" else np.eye(10)[classes]
    order, velocity, trace = stream_generator(cell.seed, "order"), [np.zeros_like(w) for w in weights], [weights]
    per_epoch = math.ceil(len(x) / cell.batch_size)
    for step in range(until or cell.steps):
        if step % per_epoch == 0:
            shuffle = torch.randperm(len(x), generator=order).numpy()
        batch = shuffle[step % per_epoch * cell.batch_size :][: cell.batch_size]
        h = [x[batch]]
        for w in weights[:-1]:
            h.append(np.maximum(h[-1] @ w.T, 0))
        f = h[-1] @ weights[-1].T / cell.alpha
        if cell.loss == "cross_entropy":
            p = np.exp(f - f.max(1, keepdims=True))
            back = (p / p.sum(1, keepdims=True) - target[batch]) / len(batch)
        else:
            back = (f - target[batch]) / len(batch)
        back = back / cell.alpha
        gradients = []
        for w, below in zip(reversed(weights), reversed(h), strict=True):
            gradients.append(back.T @ below)
            back = back @ w * (below > 0)
        rate = cell.lr * cell.lr_decay ** sum(step >= round(m * cell.steps) for m in cell.milestones)
        if cell.lr_rule == "inverse_width":
            rate *= 128 / cell.width
        updated = []
        for k, (w, gradient) in enumerate(zip(weights, reversed(gradients), strict=True)):
            velocity[k] = cell.momentum * velocity[k] + gradient + cell.weight_decay * w
            updated.append(w - rate * velocity[k])
        weights = updated
        trace.append(weights)
    return trace


def relative_error(model, expected):
    pairs = zip(model.weights, expected, strict=True)
    return max(np.linalg.norm(w.detach().numpy() - e) / np.linalg.norm(e) for w, e in pairs)


def trained(cell, observe=lambda step, model: True, evaluate_at=()):
    (_, x, y), nets = prepared(cell), Loop([cell], "cpu", torch.float64)
    nets.train(x, y, evaluate_at=evaluate_at, observe=lambda step: [observe(step, nets.model)])
    return nets.model


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"depth": 2},
        {"depth": 5, "width": 9, "init": "ntk"},
        {"loss": "squared"},
        {"loss": "squared", "depth": 2, "alpha": 3.0},
        {"loss": "squared", "target": "parity", "lr": 0.05},
        {"momentum": 0.9, "lr": 0.02},
        {"weight_decay": 0.1},
        {"momentum": 0.5, "weight_decay": 0.01, "loss": "squared", "lr": 0.02},
        {"init": "power", "power": 1.0, "depth": 2, "lr": 0.5},
        {"lr_rule": "inverse_width", "lr": 0.005},
        {"batch_size": 23},
        {"batch_size": 1, "lr": 0.05},
        {"epochs": 0.5},
        {"milestones": ()},
        {"seed": 3, "init": "lecun"},
    ],
    ids=lambda fields: ", ".join(f"{k} {v}" for k, v in fields.items()) or "plain",
)
def test_the_loop_is_the_chain_rule(fields):
    cell = Cell(**(SHORT | fields))
    model, x, y = prepared(cell)
    expected = by_hand(model.weights, x, y, cell)
    # 20 to 70 steps of a stable training, each adding a few roundings of 1e-16.
    assert relative_error(trained(cell), expected[-1]) < 1e-12
    moved = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(expected[-1], expected[0], strict=True)]
    assert min(moved) > 1e-4  # or nothing would have been compared


def test_the_loop_is_observed_before_its_steps_and_after_the_last():
    cell = Cell(**SHORT)
    model, x, y = prepared(cell)
    expected, seen = by_hand(model.weights, x, y, cell), {}

    def observe(step, model):
        seen[step] = relative_error(model, expected[step])
        return True

    trained(cell, observe, evaluate_at={0, 3, 9, 10, 18, 19, 40})
    assert list(seen) == [0, 3, 9, 10, 18]
    assert max(seen.values()) < 1e-12


def test_training_ends_when_the_observer_says_so():
    cell, seen = Cell(**SHORT), []

    def observe(step, model):
        seen.append(step)
        return step < 7

    model, x, y = prepared(cell)
    stopped = trained(cell, observe, evaluate_at=(0, 3, 7, 12, 18))
    assert seen == [0, 3, 7]
    assert relative_error(stopped, by_hand(model.weights, x, y, cell, until=7)[-1]) < 1e-12


def test_the_order_of_the_data_belongs_to_the_seed(poisoned_seeds):
    cell = Cell(**SHORT)
    poisoned_seeds(0)
    first = trained(cell)
    poisoned_seeds(1)
    assert all(torch.equal(a, b) for a, b in zip(first.weights, trained(cell).weights, strict=True))

    def after_one_step(order_seed):
        (_, x, y), nets = prepared(cell), Loop([cell], "cpu", torch.float64)
        nets.cells = [dataclasses.replace(cell, seed=order_seed)]
        nets.train(x, y, evaluate_at={1}, observe=lambda step: [False])
        return nets.network(0)[-1]

    assert not torch.equal(after_one_step(0), after_one_step(1))


# ------------------------------------------------------------------------------------------------ losses, targets


def test_targets():
    y = torch.tensor([0, 3, 9, 4])
    assert torch.equal(targets(y, Cell(width=4, depth=2), torch.float32), y)
    one_hot = targets(y, Cell(width=4, depth=2, loss="squared"), torch.float64)
    assert one_hot.dtype == torch.float64 and np.array_equal(one_hot, np.eye(10)[[0, 3, 9, 4]])
    parity = targets(y, Cell(width=4, depth=2, loss="squared", target="parity"), torch.float32)
    assert parity.dtype == torch.float32 and parity.tolist() == [[-1], [1], [1], [-1]]


def test_losses_are_means_over_the_points():
    output = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([0, 2, 1, 1, 0])
    z, classes = output.numpy(), y.numpy()
    by_class = np.log(np.exp(z).sum(1)) - z[range(5), classes]
    assert loss_function("cross_entropy")(output, y).item() == pytest.approx(by_class.mean(), rel=1e-14)
    by_distance = ((z - np.eye(3)[classes]) ** 2).sum(1) / 2
    one_hot = F.one_hot(y, 3).double()
    assert loss_function("squared")(output, one_hot).item() == pytest.approx(by_distance.mean(), rel=1e-14)


# ------------------------------------------------------------------------------------------------ movement


def test_kappa_is_a_ratio_of_sums_and_movement_is_of_each_layer():
    generator = np.random.default_rng(0)
    start = [generator.standard_normal(shape) for shape in ((4, 9), (4, 4), (2, 4))]
    now = [w + scale * generator.standard_normal(w.shape) for w, scale in zip(start, (0.1, 1.0, 3.0), strict=True)]
    moved = [np.linalg.norm(a - b) for a, b in zip(now, start, strict=True)]
    began = [np.linalg.norm(b) for b in start]
    tensors = [torch.nn.Parameter(torch.tensor(w)) for w in now], [torch.tensor(w) for w in start]
    assert lazy_ratio(*tensors) == pytest.approx(sum(moved) / sum(began), rel=1e-14)
    assert layer_movement(*tensors) == pytest.approx([m / b for m, b in zip(moved, began, strict=True)], rel=1e-14)
    assert abs(lazy_ratio(*tensors) - np.mean(layer_movement(*tensors))) > 0.1  # not a mean of ratios


def test_a_network_that_has_not_moved_is_as_lazy_as_can_be():
    weights = list(build(Cell(width=4, depth=3)).weights)
    assert lazy_ratio(weights, [w.detach().clone() for w in weights]) == 0
    doubled = [2 * w.detach() for w in weights]
    assert lazy_ratio(doubled, weights) == pytest.approx(1, rel=1e-7)
    assert layer_movement(doubled, weights) == pytest.approx([1, 1, 1], rel=1e-7)


def test_weights_too_small_to_square_in_float32_still_have_a_ratio():
    start = [torch.full((3, 3), 1e-25)]
    assert lazy_ratio([1.5 * start[0]], start) == pytest.approx(0.5, rel=1e-6)


def test_networks_of_different_depth_cannot_be_compared():
    weights = list(build(Cell(width=4, depth=3)).weights)
    for compare in (lazy_ratio, layer_movement):
        with pytest.raises(ValueError, match="shorter"):
            compare(weights, weights[:2])


# ------------------------------------------------------------------------------------------------ convolutional nets

CONVOLUTIONAL = SHORT | {"width": 3, "lr": 0.02, "momentum": 0.9, "weight_decay": 0.01}


@pytest.mark.parametrize(
    "fields",
    [{"model": "cnn", "depth": 4, "head": "flatten"}, {"model": "resnet", "depth": 8}],
    ids=str,
)
def test_a_convolutional_net_trains_as_in_a_loop_without_an_optimizer(fields):
    cell = Cell(**(CONVOLUTIONAL | fields))
    model, x, y = prepared(cell)
    order, velocity = stream_generator(cell.seed, "order"), {}
    model.train()
    for step in range(cell.steps):
        if step % 6 == 0:
            shuffle = torch.randperm(23, generator=order)
        batch = shuffle[step % 6 * 4 :][:4]
        gradients = torch.autograd.grad(F.cross_entropy(model(x[batch]), y[batch]), list(model.parameters()))
        with torch.no_grad():
            for k, (weight, gradient) in enumerate(zip(model.parameters(), gradients, strict=True)):
                velocity[k] = 0.9 * velocity.get(k, 0) + gradient + 0.01 * weight
                weight -= 0.02 * 0.3 ** ((step >= 9) + (step >= 14)) * velocity[k]
    found = trained(cell)
    for name, value in model.state_dict().items():  # running statistics too
        assert torch.allclose(found.state_dict()[name], value, rtol=1e-10, atol=1e-13), name


def test_what_observes_sees_a_model_in_evaluation_mode_and_does_not_change_the_training():
    cell, modes = Cell(**(CONVOLUTIONAL | {"model": "resnet", "depth": 8})), []

    def observe(step, model):
        modes.append(model.training)
        model(torch.zeros(1, 1, 8, 8).double())
        return True

    seen, alone = trained(cell, observe, evaluate_at=range(0, 19, 3)), trained(cell)
    assert modes == [False] * 7 and not seen.training and not alone.training
    assert all(
        torch.equal(a, b) for a, b in zip(seen.state_dict().values(), alone.state_dict().values(), strict=True)
    )


def test_each_image_is_shifted_and_mirrored_by_a_draw_of_its_own():
    images = (
        torch.rand(2000, 2, 5, 7, generator=torch.Generator().manual_seed(0))
        + torch.tensor([1.0, 2.0])[:, None, None]
    )
    changed = CropFlip(images, torch.Generator().manual_seed(1))(images)
    assert changed.shape == images.shape
    black = images.amin((0, 2, 3))
    found = []
    for image, result in zip(images[:300], changed, strict=False):
        canvas = black[:, None, None].expand(2, 13, 15).clone()
        canvas[:, 4:9, 4:11] = image
        views = {(a, b): canvas[:, a : a + 5, b : b + 7] for a in range(9) for b in range(9)}
        # What shows nothing of the image may be several views at once.
        match = [(*at, f) for at, v in views.items() for f in (0, 1) if torch.equal(v.flip(2) if f else v, result)]
        assert match
        found += match if len(match) == 1 else []
    assert {a for a, _, _ in found} >= set(range(9)) and {b for _, b, _ in found} >= set(range(9))
    mirrored = sum(f for _, _, f in found)
    assert abs(mirrored - len(found) / 2) < 4 * (len(found) / 4) ** 0.5


def test_augmentation_belongs_to_the_seed_and_not_to_the_device_or_the_global_seeds(poisoned_seeds):
    images = torch.rand(6, 1, 8, 8)
    results = []
    for seed in (3, 3, 4):
        poisoned_seeds(len(results))
        results.append(CropFlip(images, stream_generator(seed, "augment"))(images))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and there is none")


@needs_gpu
@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_on_a_gpu_a_resnet_trains_as_on_the_cpu_with_graphs_and_without(augment, monkeypatch):
    """In float64, where 18 steps leave only roundings; the running statistics too, which warming up must not move."""
    cell, states = Cell(**(CONVOLUTIONAL | {"model": "resnet", "depth": 8, "augment": augment})), []
    for device, graphs in (("cpu", False), ("cuda", False), ("cuda", True)):
        with monkeypatch.context() as patch:
            if not graphs:
                patch.setattr(GraphedStep, "EARLY", 10**9)
            nets, seen = Loop([cell], device, torch.float64), []
            _, x, y = prepared(cell)
            observe = lambda step: [seen.append(step) or True]  # noqa: B023, E731
            nets.train(x.to(device), y.to(device), evaluate_at=(0, 7, 18), observe=observe)
        states.append({name: value.cpu() for name, value in nets.model.state_dict().items()})
        assert seen == [0, 7, 18]
    for name, value in states[0].items():
        for other in states[1:]:
            assert torch.allclose(other[name], value, rtol=1e-7, atol=1e-10), name


@needs_gpu
def test_on_a_gpu_images_are_shifted_as_on_the_cpu():
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    here, there = (CropFlip(i, stream_generator(0, "augment"))(i) for i in (images, images.cuda()))
    assert torch.equal(here, there.cpu())
