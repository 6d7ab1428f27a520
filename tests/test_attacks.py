"""Attacks and Lipschitz constants: against what is known exactly, a search of the whole ball, and another library."""

import functools
import math

import numpy as np
import pytest
import torch

from robustkit import attacks
from robustkit import cell as cell_module
from robustkit.attacks import attacked_accuracies, fgsm, lipschitz_constants, margins, pgd, spectral_product
from robustkit.cell import RADII, Cell, InputError
from robustkit.data import load_dataset
from robustkit.networks import FCN
from robustkit.training.loop import Loop

pytestmark = pytest.mark.usefixtures("one_thread")

NORMS = sorted(RADII)
DUAL = {"l2": 2, "linf": 1}  # a step of length r changes w.x by r ||w|| in this norm at most
LENGTH = {"l2": 2, "linf": math.inf}


def network(d_in=6, d_out=4, depth=3, width=16, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    model = FCN(width=width, depth=depth, d_in=d_in, d_out=d_out, alpha=0.5, generator=generator).to(dtype)
    return model.requires_grad_(False), torch.randn(230, d_in, generator=generator).to(dtype)


@functools.cache
def digits_classifier():
    """A network trained on the digits, its test points and their classes, in float32."""
    cell, data = Cell(width=64, depth=4, epochs=20, lr=0.04), load_dataset("digits")
    nets = Loop([cell], "cpu", torch.float32)
    nets.train(data.x_train, data.y_train, evaluate_at=(), observe=lambda step: [True])
    return nets.model, data.x_test, data.y_test


# ------------------------------------------------------------------------------------------------ margins


def test_a_margin_is_the_lead_of_the_own_class_over_the_best_other():
    outputs = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0], [-5.0, -7.0, -6.0]])
    assert margins(outputs, torch.tensor([1, 2, 0])).tolist() == [2.0, -2.0, 1.0]
    # Odd classes are +1, even ones -1.
    assert margins(torch.tensor([[0.5], [0.5], [-2.0]]), torch.tensor([3, 4, 0]), parity=True).tolist() == [
        *(0.5, -0.5, 2.0)
    ]


def test_classes_that_are_not_those_of_the_outputs_are_refused():
    for outputs, y, parity, words in (
        (torch.ones(2, 1), torch.zeros(2, dtype=torch.long), False, r"\(2, 1\).*wider"),
        (torch.ones(2, 3), torch.zeros(2, dtype=torch.long), True, r"\(2, 3\).*parity"),
        (torch.ones(2, 3), torch.tensor([0, 3]), False, "0 to 3.*0 and 2"),
        (torch.ones(2, 3), torch.tensor([-1, 0]), False, "-1 to 0"),
        (torch.ones(2, 3), torch.tensor([0]), False, "for 1 classes"),
    ):
        with pytest.raises(InputError, match=words):
            margins(outputs, y, parity=parity)


# ------------------------------------------------------------------------------------------------ linear classifiers


def linear(classes, d=6, n=200, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(classes, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    # A tenth of the labels are wrong, so that clean accuracy is not 1.
    y = (x @ weight.T).argmax(1) if classes > 1 else ((x @ weight.T)[:, 0] > 0).long()
    y[::10] = (y[::10] + 1) % max(classes, 2)
    return weight, x, y, lambda z: scale * z @ weight.T


def wider(x):
    """The points with one more coordinate, which is 0."""
    return torch.cat([torch.zeros_like(x[:, :1]), x], 1)


def distances(weight, x, y, norm):
    """Signed distance of each point to the nearest plane on which it is no longer classified as y."""
    if len(weight) == 1:
        return (2 * y - 1) * (x @ weight[0]) / weight[0].norm(p=DUAL[norm])
    outputs, found = x @ weight.T, []
    for point, own in zip(outputs, y, strict=True):
        others = [k for k in range(len(weight)) if k != own]
        found.append(min((point[own] - point[k]) / (weight[own] - weight[k]).norm(p=DUAL[norm]) for k in others))
    return torch.tensor(found)


def radii_between(values):
    """Radii halfway between two neighbouring distances: no point is within rounding of one."""
    values = values[values > 0].sort().values
    return [((values[i] + values[i + 1]) / 2).item() for i in (0, 20, 60, 100, 150)]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e4])
def test_of_a_linear_classifier_just_the_points_within_the_radius_of_the_plane_fall(norm, classes, scale):
    """The optimum is known: w.x + r ||w||, in the dual norm. No scale of the logits, no saturation, changes it."""
    weight, x, y, model = linear(classes, scale=scale)
    values = distances(weight, x, y, norm)
    radii = radii_between(values)
    expected = [(values > radius).double().mean().item() for radius in radii]
    found = attacked_accuracies(model, x, y, radii, norm=norm, parity=classes == 1)
    assert found == {"fgsm": expected, "pgd": expected}
    assert 0.85 < expected[0] < 0.95 and expected[-1] < 0.2


@pytest.mark.parametrize("norm", NORMS)
def test_of_a_linear_classifier_of_many_classes_no_point_falls_that_cannot_and_most_fall_that_can(norm):
    weight, x, y, model = linear(5)
    values = distances(weight, x, y, norm)
    radii = radii_between(values)
    possible = [(values > radius).double().mean().item() for radius in radii]
    found = attacked_accuracies(model, x, y, radii, norm=norm)
    # The nearest logit need not be the nearest plane: descent may miss a few points in a hundred, one step more.
    assert all(low <= value <= low + 0.03 for value, low in zip(found["pgd"], possible, strict=True))
    assert all(low <= value <= low + 0.1 for value, low in zip(found["fgsm"], possible, strict=True))


# ------------------------------------------------------------------------------------------------ any network


@pytest.mark.parametrize("norm", NORMS)
def test_in_the_plane_pgd_finds_what_a_search_of_the_whole_ball_finds(norm):
    generator = torch.Generator().manual_seed(2)
    model = FCN(width=16, depth=3, d_in=2, d_out=3, generator=generator).double().requires_grad_(False)
    x = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    y = model(x).argmax(1)
    if norm == "l2":
        angle = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
        ball = torch.stack([angle.cos(), angle.sin()], 1) * torch.linspace(0, 1, 20)[:, None, None]
    else:
        side = torch.linspace(-1, 1, 61, dtype=torch.float64)
        ball = torch.stack(torch.meshgrid(side, side, indexing="ij"), 2)
    # It finds nothing that is not there (a grid may miss a sliver); it misses a few where a ball holds many pieces.
    for radius, missed in ((0.1, 1), (0.3, 2), (0.6, 6)):
        classes = model((x[:, None] + radius * ball.flatten(0, 1)).flatten(0, 1)).argmax(1).reshape(len(x), -1)
        searched = (classes == y[:, None]).all(1).sum().item()
        assert searched < 60
        ((found,),) = [attacked_accuracies(model, x, y, [radius], norm=norm)["pgd"]]
        assert searched - 1 <= 60 * found <= searched + missed


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_one_full_step_down_the_gradient_of_the_margin(norm):
    model, x = network()
    y = model(x).argmax(1)
    rows = torch.func.vmap(torch.func.jacrev(model.forward))(x[:, None])[:, 0, :, 0]  # (n, d_out, d_in)
    others = model(x).scatter(1, y[:, None], -math.inf).argmax(1)
    gradient = rows[torch.arange(len(x)), y] - rows[torch.arange(len(x)), others]
    step = gradient.sign() if norm == "linf" else gradient / gradient.norm(dim=1, keepdim=True)
    torch.testing.assert_close(fgsm(model, x, y, 0.3, norm=norm), x - 0.3 * step, rtol=0, atol=1e-14)


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_stays_within_the_radius_and_is_never_weaker_than_fgsm_at_any_point(norm):
    model, x = network()
    y = model(x).argmax(1)
    for radius in (0.05, 0.5, 5.0):
        for steps in (1, 3, 20):
            one, many = fgsm(model, x, y, radius, norm=norm), pgd(model, x, y, radius, norm=norm, steps=steps)
            assert ((many - x).norm(p=LENGTH[norm], dim=1) <= radius * (1 + 1e-12)).all()
            before, after = margins(model(one), y), margins(model(many), y)
            assert (after <= before).all() and (after <= margins(model(x), y)).all()
        assert (after < before - 1e-9).any()  # twenty steps find more than one


@pytest.mark.parametrize("norm", NORMS)
def test_accuracy_falls_with_the_radius_and_comes_in_the_order_that_was_asked_for(norm, monkeypatch):
    model, x = network(seed=3)
    y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % 4
    radii = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 40.0]
    found = attacked_accuracies(model, x, y, radii, norm=norm)
    assert (margins(model(x), y) > 0).double().mean() >= found["fgsm"][0]
    for values in found.values():
        assert values == sorted(values, reverse=True) and values[0] > values[2]
    assert all(many <= one for one, many in zip(found["fgsm"], found["pgd"], strict=True))
    mixed = attacked_accuracies(model, x, y, [3.2, 0.1, 0.4, 0.2, 1.6, 0.8, 40.0], norm=norm)["pgd"]
    assert mixed == [found["pgd"][k] for k in (5, 0, 2, 1, 4, 3, 6)]
    # However many points are attacked at once, each is as if it were alone.
    monkeypatch.setattr(attacks, "CHUNK", 17)
    assert attacked_accuracies(model, x, y, radii, norm=norm) == found
    assert pgd(model, x, y, 0.4, norm=norm).shape == x.shape


@pytest.mark.parametrize("norm", NORMS)
def test_images_are_attacked_as_images(norm):
    model, x = network()
    y = model(x).argmax(1)
    images = x.reshape(-1, 1, 2, 3)
    assert torch.equal(pgd(model, images, y, 0.3, norm=norm), pgd(model, x, y, 0.3, norm=norm).reshape(images.shape))
    assert torch.equal(lipschitz_constants(model, images), lipschitz_constants(model, x))
    generator = torch.Generator().manual_seed(0)
    kernel, head = (torch.randn(*shape, generator=generator).double() for shape in ((3, 1, 2, 2), (4, 6)))

    def convolution(z):
        return torch.relu(torch.nn.functional.conv2d(z, kernel)).flatten(1) @ head.T

    classes = convolution(images).argmax(1)
    found = attacked_accuracies(convolution, images, classes, [1e-9, 10.0], norm=norm)["pgd"]
    assert found[0] == (margins(convolution(images), classes) > 0).double().mean() > 0.9 and found[1] < 0.3


def test_a_network_without_gradient_resists_and_one_that_overflows_does_not_classify(monkeypatch):
    _, x, y, model = linear(2)
    monkeypatch.setattr(attacks, "CHUNK", len(x))
    flat = attacked_accuracies(lambda z: 0 * z[:, :2] + torch.tensor([1.0, 0.0]), x, y, [1.0])
    assert flat == {attack: [(y == 0).double().mean().item()] for attack in ("fgsm", "pgd")}
    lost = attacked_accuracies(lambda z: z[:, :2] * math.nan, x, y, [1.0])
    assert lost == {"fgsm": [0.0], "pgd": [0.0]}

    def overflowing(z):
        """The classifier within a tiny distance of its points, not a number beyond."""
        return model(z) * (1 + torch.cdist(z, x).amin(1).mul(1e6).exp() * 0)[:, None]

    near = attacked_accuracies(overflowing, x, y, [1e-9])
    far = attacked_accuracies(overflowing, x, y, [1e-3])
    assert near["pgd"][0] > 0.8 and far == {"fgsm": [0.0], "pgd": [0.0]}


@pytest.mark.parametrize("norm", NORMS)
def test_where_a_part_of_the_gradient_is_not_a_number_the_rest_is_followed(norm):
    _, x, y, model = linear(2)
    whole = attacked_accuracies(model, x, y, [0.5], norm=norm)
    broken = attacked_accuracies(lambda z: model(z[:, 1:]) + (0 * z[:, :1]).sqrt(), wider(x), y, [0.5], norm=norm)
    assert broken == whole


def test_a_model_that_works_in_place_leaves_the_points_as_they_are():
    model, x = network()
    y, before = model(x.relu()).argmax(1), x.clone()
    in_place = torch.nn.Sequential(torch.nn.ReLU(inplace=True), model)
    found = pgd(in_place, x, y, 0.3)
    assert torch.equal(x, before)
    assert torch.equal(found, pgd(torch.nn.Sequential(torch.nn.ReLU(), model), x, y, 0.3))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_classes_are_integers_of_any_kind(dtype):
    model, x = network()
    y = model(x).argmax(1)
    for parity in (False, True):
        outputs = model(x)[:, :1] if parity else model(x)
        assert torch.equal(margins(outputs, y.to(dtype), parity=parity), margins(outputs, y, parity=parity))
    assert torch.equal(pgd(model, x, y.to(dtype), 0.3, steps=3), pgd(model, x, y, 0.3, steps=3))
    with pytest.raises(InputError, match="y is torch.float32, but must be integers"):
        fgsm(model, x, y.float(), 0.3)


def attacked(call, model, x):
    y = torch.zeros(len(x), dtype=torch.long)
    return call(model, x) if call is lipschitz_constants else call(model, x, y, 0.1)


ATTACKING = pytest.mark.parametrize("call", [lipschitz_constants, fgsm, pgd])


@ATTACKING
def test_what_the_metric_refuses_is_refused_and_the_model_is_left_as_it_was(call):
    normed = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.BatchNorm1d(20), torch.nn.Linear(20, 4))
    spectral = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(6, 4))
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    for model in (normed, spectral):
        before = {name: buffer.tolist() for name, buffer in model.named_buffers()}
        with pytest.raises(ValueError, match="in training mode: call model.eval"):
            attacked(call, model, x)
        with pytest.raises(ValueError, match="in training mode: call model.eval"):
            attacked(call, lambda z, model=model: model(z), x)
        assert before == {name: buffer.tolist() for name, buffer in model.named_buffers()} and model.training
        attacked(call, model.eval(), x)
        assert all(parameter.requires_grad for parameter in model.parameters())
    for model, words in (
        (lambda z: z + 0.01 * torch.randn(z.shape), "change between calls"),
        (lambda z: z - z.mean(0), "change with the points beside"),
    ):
        with pytest.raises(ValueError, match=words):
            attacked(call, model, x)


@ATTACKING
def test_torchs_global_state_changes_no_attack(call):
    model, x = network(dtype=torch.float32)
    expected = attacked(call, model, x)
    with torch.inference_mode():
        assert torch.equal(attacked(call, model, x.clone()), expected)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attacked(call, model, x), expected)


def test_bad_input_to_an_attack_is_refused():
    model, x = network()
    y = torch.zeros(len(x), dtype=torch.long)
    for radius in (0, -1.0, math.nan, "1"):
        for call in (fgsm, pgd):
            with pytest.raises(InputError, match="radius is"):
                call(model, x, y, radius)
        with pytest.raises(InputError, match="radius is"):
            attacked_accuracies(model, x, y, [1.0, radius])
    for arguments, words in (
        ({"norm": "l1"}, "norm is 'l1'.*l2, linf"),
        ({"steps": 0}, "steps is 0"),
        ({"x": x[0]}, "floating-point points"),
        ({"x": x.long()}, "int64"),
        ({"y": y[1:]}, "a class for each"),
        ({"x": x[:0], "y": y[:0]}, r"\(0, 6\)"),
        ({"model": torch.nn.Sequential(torch.nn.Dropout(), model)}, "training mode"),
        ({"model": lambda z: model(z).detach()}, "no gradient"),
    ):
        with pytest.raises(InputError, match=words):
            pgd(**({"model": model, "x": x, "y": y, "radius": 1.0} | arguments))


# ------------------------------------------------------------------------------------------------ another library


class MarginLoss(torch.nn.Module):
    def forward(self, outputs, y):
        return -margins(outputs, y.argmax(1)).sum()


@functools.cache
def by_art(loss, norm, radius):
    """The points of FGSM and of PGD that the Adversarial Robustness Toolbox finds against the digits' network."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    model, x, y = digits_classifier()
    classifier = PyTorchClassifier(model, loss(), input_shape=x.shape[1:], nb_classes=10, device_type="cpu")
    options = {"norm": {"l2": 2, "linf": np.inf}[norm], "eps": radius, "batch_size": len(x)}
    steps = {"eps_step": 2.5 * radius / 20, "max_iter": 20, "verbose": False}
    found = FastGradientMethod(classifier, **options), ProjectedGradientDescent(classifier, **options, **steps)
    return [torch.from_numpy(attack.generate(x.numpy(), y.numpy())) for attack in found]


LIBRARY = [("l2", 0.25), ("l2", 0.5), ("linf", 0.05), ("linf", 0.1)]


@pytest.mark.parametrize(("norm", "radius"), LIBRARY)
def test_the_same_attacks_by_an_established_library_reach_the_same_points(norm, radius):
    """It starts at x, too, and takes the same steps; but it returns where PGD ends, not the best point on the way."""
    model, x, y = digits_classifier()
    theirs, ours = by_art(MarginLoss, norm, radius), [f(model, x, y, radius, norm=norm) for f in (fgsm, pgd)]
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6)
    ended, best = margins(model(theirs[1]), y), margins(model(ours[1]), y)
    assert (best <= ended + 1e-3).all()
    assert (best >= ended - 0.01).double().mean() > 0.9  # the end is mostly the best
    found = attacked_accuracies(model, x, y, [radius], norm=norm)
    for attack, points in zip(("fgsm", "pgd"), theirs, strict=True):
        # A point within rounding of the border may fall to one and not to the other.
        assert found[attack][0] == pytest.approx((margins(model(points), y) > 0).double().mean().item(), abs=2 / 360)


@pytest.mark.parametrize(("norm", "radius"), LIBRARY)
def test_the_margin_is_about_as_good_an_aim_as_the_librarys_own_cross_entropy(norm, radius):
    model, x, y = digits_classifier()
    theirs = by_art(torch.nn.CrossEntropyLoss, norm, radius)[1]
    accuracy = (margins(model(theirs), y) > 0).double().mean().item()
    assert attacked_accuracies(model, x, y, [radius], norm=norm)["pgd"][0] == pytest.approx(accuracy, abs=0.03)


# ------------------------------------------------------------------------------------------------ Lipschitz constants


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("depth", [2, 5])
def test_the_local_constant_is_the_largest_singular_value_and_the_product_bounds_them_all(depth, dtype):
    model, x = network(depth=depth, dtype=dtype)
    local, bound = lipschitz_constants(model, x), spectral_product(model.weights, alpha=model.alpha)
    rows = torch.func.vmap(torch.func.jacrev(model.forward))(x[:, None])[:, 0, :, 0].double()
    assert local.dtype == torch.float64 and local.shape == (230,)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(local, torch.linalg.matrix_norm(rows, 2), rtol=tolerance, atol=0)
    norms = [np.linalg.svd(w.double().numpy(), compute_uv=False)[0] for w in model.weights]
    assert bound == pytest.approx(math.prod(norms) / 0.5, rel=1e-12)
    assert local.max() < bound


def test_the_product_is_reached_where_every_unit_is_active():
    weights = [torch.full((3, 2), 2.0), torch.full((1, 3), 0.5)]  # of rank one, and aligned
    x = torch.ones(4, 2)

    def model(z):
        return torch.relu(z @ weights[0].T) @ weights[1].T

    assert lipschitz_constants(model, x).tolist() == pytest.approx([spectral_product(weights)] * 4, rel=1e-6)


def test_the_product_neither_overflows_on_the_way_nor_loses_what_is_small():
    eye = torch.eye(3, dtype=torch.float64)
    assert spectral_product([1e200 * eye, 1e200 * eye, 1e-250 * eye]) == pytest.approx(1e150, rel=1e-10)
    assert spectral_product([1e-200 * eye, 1e-200 * eye, 1e300 * eye], alpha=2.0) == pytest.approx(5e-101, rel=1e-10)
    assert spectral_product([eye.float() * 1e38] * 9) == math.inf
    assert spectral_product([eye, torch.zeros(2, 3)]) == 0.0
    assert math.isnan(spectral_product([eye, eye / 0]))


def test_what_is_no_fully_connected_network_has_no_product():
    for weights in ([], [torch.ones(2, 1, 3, 3)], [torch.ones(2, 2), torch.ones(2)]):
        with pytest.raises(InputError, match="weights have shapes"):
            spectral_product(weights)
    with pytest.raises(InputError, match="alpha is 0"):
        spectral_product([torch.ones(2, 2)], alpha=0)


def test_accuracies_are_kept_under_names_that_say_attack_norm_and_radius():
    names = [cell_module.column(a, norm, r) for a in cell_module.ATTACKS for norm in RADII for r in RADII[norm]]
    assert names[0] == "accuracy_fgsm_l2_0_5" and names[-1] == "accuracy_pgd_linf_0_1"
    assert len(set(names)) == 12
