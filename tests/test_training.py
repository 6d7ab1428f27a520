"""The plain loop against a backward pass written by hand in numpy, float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustkit.config import Cell
from robustkit.data import load_dataset, stream_generator
from robustkit.networks import build
from robustkit.training import layer_movement, lazy_ratio, loss_function, targets, train

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


def trained(cell, observe=lambda step, model: True, instants=()):
    model, x, y = prepared(cell)
    order = stream_generator(cell.seed, "order")
    y_train = targets(y, cell, torch.float64)
    train(model, x, y_train, cell, order=order, instants=instants, observe=lambda step: observe(step, model))
    return model


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

    trained(cell, observe, instants={0, 3, 9, 10, 18, 19, 40})
    assert list(seen) == [0, 3, 9, 10, 18]
    assert max(seen.values()) < 1e-12


def test_training_ends_when_the_observer_says_so():
    cell, seen = Cell(**SHORT), []

    def observe(step, model):
        seen.append(step)
        return step < 7

    model, x, y = prepared(cell)
    stopped = trained(cell, observe, instants=(0, 3, 7, 12, 18))
    assert seen == [0, 3, 7]
    assert relative_error(stopped, by_hand(model.weights, x, y, cell, until=7)[-1]) < 1e-12


def test_the_order_of_the_data_belongs_to_the_seed(poisoned_seeds):
    cell = Cell(**SHORT)
    poisoned_seeds(0)
    first = trained(cell)
    poisoned_seeds(1)
    assert all(torch.equal(a, b) for a, b in zip(first.weights, trained(cell).weights, strict=True))

    def after_one_step(order_seed):
        model, x, y = prepared(cell)
        order = stream_generator(order_seed, "order")
        train(model, x, y, cell, order=order, instants={1}, observe=lambda step: False)
        return model.weights[-1]

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
