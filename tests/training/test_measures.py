"""The row of one training: every number against a calculation of its own, and what a bad training leaves behind."""

import contextlib
import dataclasses
import json
import subprocess
import time

import numpy as np
import pytest
import torch

from robustkit.cell import EVALUATION_POINTS, FRACTIONS, Cell
from robustkit.checks import InputError
from robustkit.data import fixed_points, load_dataset
from robustkit.movement import layer_movement, lazy_ratio
from robustkit.networks import build
from robustkit.stability import perturbation_stability
from robustkit.sweep import store
from robustkit.training import group, measures
from robustkit.training.ensemble import Ensemble
from robustkit.training.group import OutOfTimeError
from robustkit.training.loop import Loop
from robustkit.training.measures import MEASURES, measure, measure_group

pytestmark = pytest.mark.usefixtures("one_thread")  # small networks are faster on one

TINY = {
    **{"width": 8, "depth": 3, "n_train": 64, "batch_size": 16, "epochs": 5, "lr": 0.1, "points": 20},
    "precision": "float64",
}
SCALARS = [name for name in MEASURES if not name.endswith("over_time") and name != "loss_at_stability"]


def cell(**fields):
    return Cell(**(TINY | fields))


def measured(**fields):
    return measure(cell(**fields))["measures"]


# ------------------------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize("scaling", ["raw", "unit"])
@pytest.mark.parametrize("fields", [{}, {"loss": "squared"}, {"loss": "squared", "target": "parity", "depth": 2}])
def test_each_number_is_what_the_trained_network_gives(scaling, fields):
    made = cell(**fields, scaling=scaling)
    row = measure(made)["measures"]
    data = load_dataset("digits", scaling=scaling, dtype=torch.float64)
    x, y = data.x_train[:64], data.y_train[:64]
    nets = Loop([made], "cpu", torch.float64)
    model, start = nets.model, [w.clone().numpy() for w in nets.network(0)]
    nets.train(x, y, evaluate_at=(), observe=lambda step: [True])

    x_test = data.x_test[fixed_points(360, 20, "test points")]
    matrices = torch.func.vmap(torch.func.jacrev(lambda z: model(z[None])[0]))(x_test).flatten(2).detach()
    singular = np.linalg.svd(matrices.numpy(), compute_uv=False)
    stability = perturbation_stability(model, x_test)
    same = x[fixed_points(64, 20, "train points")]
    logits = model(x_test).detach().numpy()
    now = [w.detach().numpy() for w in model.weights]
    moved = sum(np.linalg.norm(a - b) for a, b in zip(now, start, strict=True))
    expected = {
        "stability": stability.mean,
        "stability_sem": stability.sem,
        "stability_init": perturbation_stability(build(made).double(), x_test).mean,
        "stability_train": perturbation_stability(model, same).mean,
        "lipschitz_mean": singular[:, 0].mean(),
        "lipschitz_max": singular[:, 0].max(),
        "frobenius": np.sqrt((singular**2).sum(1)).mean(),
        "logit_norm": np.linalg.norm(logits - logits.mean(1, keepdims=True), axis=1).mean(),
        "kappa": moved / sum(np.linalg.norm(w) for w in start),
    }
    for part, points, classes in (("train", x, y), ("test", data.x_test, data.y_test)):
        f, classes = model(points).detach().numpy(), classes.numpy()
        if made.loss == "cross_entropy":
            losses = np.log(np.exp(f).sum(1)) - f[range(len(f)), classes]
        else:
            wanted = np.where(classes % 2, 1, -1)[:, None] if made.target == "parity" else np.eye(10)[classes]
            losses = ((f - wanted) ** 2).sum(1) / 2
        right = (f[:, 0] > 0) == (classes % 2 == 1) if made.target == "parity" else f.argmax(1) == classes
        expected |= {f"{part}_loss": losses.mean(), f"{part}_accuracy": right.mean()}
    assert set(expected) == set(SCALARS)
    # float64; a square root of an eigenvalue that is a difference of others keeps ten digits.
    assert {name: row[name] for name in SCALARS} == pytest.approx(expected, rel=1e-10)
    assert row["movement_over_time"][-1] == pytest.approx(
        layer_movement(list(model.weights), [torch.tensor(w) for w in start]), rel=1e-12
    )


@pytest.mark.parametrize("epochs", [0.001, 0.3, 0.5, 2, 13])
def test_what_is_followed_over_time_has_51_and_7_entries_and_ends_at_the_final_values(epochs):
    """Also where a training is so short that several instants fall on one step (1, 1, 2, 8 and 52 steps)."""
    row = measured(epochs=epochs)
    assert {name: len(row[name]) for name in set(MEASURES) - set(SCALARS)} == {
        "loss_over_time": len(EVALUATION_POINTS),
        "kappa_over_time": len(EVALUATION_POINTS),
        "stability_over_time": len(FRACTIONS),
        "loss_at_stability": len(FRACTIONS),
        "movement_over_time": len(FRACTIONS),
    }
    assert (len(EVALUATION_POINTS), len(FRACTIONS)) == (51, 7)
    assert row["kappa_over_time"][0] == 0 and row["kappa_over_time"][-1] == row["kappa"] > 0
    assert row["stability_over_time"][0] == row["stability_init"]
    assert row["stability_over_time"][-1] == row["stability"] != row["stability_init"]
    assert row["movement_over_time"][0] == [0, 0, 0]
    assert row["loss_over_time"][0] == row["loss_at_stability"][0]
    assert row["loss_over_time"][-1] == pytest.approx(row["train_loss"], rel=1e-12)
    assert row["loss_at_stability"][-1] == row["loss_over_time"][-1]


def test_the_instants_are_those_of_the_steps():
    """The entry at fraction f is the final value of a training stopped there."""
    whole = measured(epochs=10, milestones=())  # 40 steps
    for fraction, entry in ((0.1, 5), (0.5, 25), (0.9, 45)):
        part = measured(epochs=10 * fraction, milestones=())
        assert whole["kappa_over_time"][entry] == pytest.approx(part["kappa"], rel=1e-12)
        assert whole["loss_over_time"][entry] == pytest.approx(part["train_loss"], rel=1e-12)
    half = measured(epochs=5, milestones=())
    assert whole["stability_over_time"][5] == pytest.approx(half["stability"], rel=1e-12)


def test_a_row_says_how_it_came_about():
    row = measure(cell())
    assert row["status"] == "ok" and row["reason"] is None
    assert row["key"] == cell().key and Cell(**row["cell"]) == cell()
    assert set(row["measures"]) == set(MEASURES)
    engine = row["engine"]
    assert (engine["device"], engine["dtype"], engine["tf32"]) == ("cpu", "float64", False)
    assert engine["threads"] == torch.get_num_threads()
    assert row["versions"]["torch"] == torch.__version__ and row["seconds"] >= 0
    assert measure(cell(precision="float32"))["engine"]["dtype"] == "float32"


def test_a_row_goes_to_json_and_back():
    row = measure(cell(init="power", power=2.0, depth=2))
    assert json.loads(json.dumps(row["measures"], allow_nan=False)) == row["measures"]
    read = store.decode(store.encode(row))
    assert read["measures"] == row["measures"]
    assert Cell(**read["cell"]).key == read["key"]


# ------------------------------------------------------------------------------------------------ what inputs do


def test_without_bias_the_jacobian_at_initialisation_depends_on_direction_alone():
    """Unit-norm points are the raw points scaled: J(c x) = J(x), until training tells them apart."""
    raw, unit = measured(), measured(scaling="unit")
    # The points themselves are divided in float32.
    assert unit["stability_init"] == pytest.approx(raw["stability_init"], rel=1e-5)
    assert unit["loss_over_time"][0] != pytest.approx(raw["loss_over_time"][0], rel=1e-3)
    assert unit["kappa"] < raw["kappa"]  # the gradient of W_1 is proportional to the norm of the points


def test_alpha_divides_the_output():
    whole, half = measured(epochs=0.001, lr=1e-12), measured(epochs=0.001, lr=1e-12, alpha=2.0)
    assert half["stability"] == pytest.approx(whole["stability"] / 2, rel=1e-9)
    assert half["logit_norm"] == pytest.approx(whole["logit_norm"] / 2, rel=1e-9)


def test_more_points_than_there_are_are_all():
    assert measured(points=360)["stability"] == measured(points=10_000)["stability"]


def test_one_point_has_no_standard_error():
    row = measured(points=1)
    assert row["stability_sem"] is None and row["lipschitz_mean"] == row["lipschitz_max"]


RESNET = {"model": "resnet", "width": 4, "depth": 8, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}


def test_a_resnet_is_followed_after_each_epoch():
    """Accuracy on all test points, by a training of its own that stops to look; the best of the epochs is kept."""
    made = cell(**RESNET)
    row = measure(made)["measures"]
    data = load_dataset("digits", dtype=torch.float64)
    x, y = data.x_train[:64], data.y_train[:64]
    nets, found = Loop([made], "cpu", torch.float64), []
    model, start = nets.model, [w.clone() for w in nets.network(0)]

    def observe(step):
        found.append((model(data.x_test).argmax(1) == data.y_test).double().mean().item())
        return [True]

    nets.train(x, y, evaluate_at=range(4, 21, 4), observe=observe)
    assert row["test_accuracy_over_time"] == found and len(found) == 5
    assert row["best_test_accuracy"] == max(found) and row["test_accuracy"] == found[-1]
    assert row["kappa"] == pytest.approx(lazy_ratio([w.detach() for w in model.weights], start), rel=1e-12)
    x_test = data.x_test[fixed_points(360, 20, "test points")]
    assert row["stability"] == pytest.approx(perturbation_stability(model, x_test).mean, rel=1e-9)
    assert len(row["movement_over_time"][-1]) == len(model.weights) == 10
    assert "best_test_accuracy" not in measured()


def test_convolutions_run_in_the_precision_that_was_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(
        measures, "lazy_ratio", lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision) or 1.0
    )
    before = torch.backends.cudnn.conv.fp32_precision
    for precision in ("tf32", "float32"):
        measure(cell(model="cnn", head="pooling", precision=precision, epochs=1))
    assert set(seen[: len(seen) // 2]) == {"tf32"} and set(seen[len(seen) // 2 :]) == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == before


# ------------------------------------------------------------------------------------------------ what ends one


def test_training_stops_at_the_first_instant_at_or_below_the_stop_loss():
    free = measured(epochs=15, milestones=())  # 60 steps: 5 % of them is step 3, between two of the 50 instants
    losses = free["loss_over_time"]
    for stop_loss in (free["loss_at_stability"][2], losses[7], losses[30] * (1 + 1e-9)):
        row = measured(epochs=15, milestones=(), stop_loss=stop_loss)
        first = next(k for k, loss in enumerate(losses) if loss <= stop_loss)
        assert row["loss_over_time"] == pytest.approx(losses[: first + 1], rel=1e-12)
        assert row["train_loss"] == pytest.approx(losses[first], rel=1e-12)
        assert row["kappa"] == row["kappa_over_time"][-1] == pytest.approx(free["kappa_over_time"][first], rel=1e-9)
    assert measured(epochs=15, milestones=(), stop_loss=1e-9)["loss_over_time"] == pytest.approx(losses, rel=1e-12)


def test_training_stops_at_the_first_of_every_so_many_steps_at_or_below_the_stop_loss():
    free = measured(epochs=15, milestones=())
    losses = free["loss_over_time"]  # 60 steps, 50 instants: the loss at step 30 is that of instant 25
    stop = {"stop_loss": losses[25] * (1 + 1e-9), "epochs": 15, "milestones": ()}
    row = measured(**stop, stop_every=3)
    assert row["stop_step"] == 30
    assert row["train_loss"] == pytest.approx(losses[25], rel=1e-12)
    assert row["loss_over_time"] == pytest.approx(losses[:26], rel=1e-12)
    stop["stop_loss"] = losses[22] * (1 + 1e-9)  # between two of every 6 steps
    assert measured(**stop, stop_every=6)["stop_step"] == next(
        6 * k for k, loss in enumerate(losses[::5]) if loss <= stop["stop_loss"]
    )
    assert measured(**stop | {"stop_loss": 1e-9}, stop_every=7)["stop_step"] == 60
    with pytest.raises(InputError, match="stop_every is 7, but stop_loss is None"):
        cell(stop_every=7)


def test_a_training_that_runs_out_of_time_is_dropped():
    with pytest.raises(OutOfTimeError):
        measure_group([cell()], deadline=time.monotonic() - 1)
    assert measure_group([cell()], deadline=time.monotonic() + 600)[0]["status"] == "ok"


def test_a_cells_own_dataset_is_measured_by_its_content(write_npz):
    """The same path with other content is another dataset, not the one in memory."""
    fields = {"width": 4, "depth": 2, "batch_size": 4, "epochs": 1, "points": 8}
    first = measure(Cell(**fields, dataset=write_npz()))
    x_test = 5 * np.random.default_rng(3).standard_normal((8, 3)).astype(np.float32)
    second = measure(Cell(**fields, dataset=write_npz(x_test=x_test)))
    assert first["key"] != second["key"]
    assert first["measures"]["stability"] != second["measures"]["stability"]
    assert dataclasses.replace(Cell(**first["cell"])).key == second["key"]  # the path now means the second file


@pytest.fixture
def user_settings():
    """Sets torch as a user may have set it; afterwards as before."""
    switches = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [switch.fp32_precision for switch in switches]
    with contextlib.ExitStack() as stack:
        dtype = torch.get_default_dtype()

        def choose(name):
            if name == "default dtype":
                torch.set_default_dtype(torch.float64)
            elif name == "default device":
                stack.enter_context(torch.device("meta"))
            elif name == "matrix precision":
                for switch in switches:
                    switch.fp32_precision = "tf32"
            else:
                modes = {"autocast": torch.autocast("cpu"), "no gradients": torch.no_grad()}
                stack.enter_context(modes[name] if name in modes else torch.inference_mode())

        yield choose
        torch.set_default_dtype(dtype)
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


def torch_state():
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    return [torch.get_default_dtype(), torch.get_default_device(), *modes, *(s.fp32_precision for s in switches)]


SETTINGS = ("default dtype", "default device", "matrix precision", "autocast", "no gradients", "inference mode")


@pytest.mark.parametrize("model", [{}, {"model": "cnn", "head": "flatten"}], ids=["fcn", "cnn"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_has_the_same_bits_however_the_user_has_set_torch(user_settings, setting, model):
    """With float64 as the default a row had other numbers under the same key; autocast changed those of a CNN."""
    made = Cell(width=4, depth=3, epochs=1, points=8, n_train=64, batch_size=16, **model)
    plain = measure(made)["measures"]
    user_settings(setting)
    before = torch_state()
    row = measure(made)
    assert row["measures"] == plain and row["engine"]["dtype"] == "float32"
    assert torch_state() == before


@pytest.mark.parametrize(("precision", "wanted"), [("float32", "ieee"), ("float64", "ieee"), ("tf32", "tf32")])
def test_a_cell_trains_in_the_precision_of_products_that_it_asks_for(monkeypatch, precision, wanted):
    seen, train = [], Ensemble.train
    switch = torch.backends.cuda.matmul
    monkeypatch.setattr(
        Ensemble, "train", lambda *args, **named: seen.append(switch.fp32_precision) or train(*args, **named)
    )
    measure(Cell(width=4, depth=2, epochs=1, points=8, precision=precision))
    assert seen == [wanted]


@pytest.mark.parametrize(
    "fields", [{"alpha": 1e300}, {"init": "gain", "gain": 1e-30}, {"init": "power", "power": 30}]
)
def test_a_scale_that_float32_cannot_hold_is_said(fields):
    """Where alpha, the gain or m^-c underflows, the row blamed dead hidden units alone."""
    row = measure(cell(width=16, epochs=0.05, precision="float32", **fields))
    said = "the stability is exactly 0: every hidden unit is dead, or numbers are too small for float32"
    assert (row["status"], row["reason"]) == ("diverged", said)


def test_a_copy_inside_another_repository_does_not_record_that_ones_commit(tmp_path, monkeypatch):
    """An unpacked tarball gave the commit of what it lay in."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    monkeypatch.setattr(group, "ROOT", tmp_path)
    assert group.commit.__wrapped__()
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(group, "ROOT", tmp_path / "unpacked")
    assert group.commit.__wrapped__() is None
