"""Measures that a training's row does not hold, by training it again."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import attacks
from .. import cell as cell_module
from ..cell import EVALUATION_POINTS, FRACTIONS, Cell
from ..checks import check_choice
from ..data import fixed_points
from ..datasets import dataset_info
from ..networks import FCN, build
from ..stability import gram_eigenvalues, jacobian, norm_in_ball
from .loop import Loop, targets
from .measures import LOSS_POINTS, OutOfTimeError, _dataset, _finite, engine_of, in_its_precision, mean_losses, row_of

# A measure's version is part of its rows' keys: raise it when an edit changes what they mean.
FURTHER = {"jacobian_change": 1, "attack": 2}
POINTS = {"jacobian_change": 100, "attack": 200}  # the first of the fixed points that every row is measured on

# loss_at_end is the last loss_over_time of the training's own row, if the same network was trained again.
COLUMNS = {
    "jacobian_change": (
        *("loss_at_end", "jacobian_init", "jacobian_end", "jacobian_change", "jacobian_change_over_time"),
        *("frobenius_init", "frobenius_end", "frobenius_change", "frobenius_change_over_time"),
    ),
    "attack": (
        *("loss_at_end", "logit_stability", "logit_stability_train", "softmax_stability", "softmax_stability_train"),
        *("lipschitz_mean", "lipschitz_max", "spectral_product", "margin", "logit_norm", "accuracy"),
        *(
            cell_module.column(a, norm, r)
            for a in cell_module.ATTACKS
            for norm, radii in cell_module.RADII.items()
            for r in radii
        ),
    ),
}
TRACES = ("jacobian_change_over_time", "frobenius_change_over_time")


def further_key(cell: Cell, name: str) -> str:
    """SHA-256 of the cell's key, the measure's name and its version, in canonical JSON."""
    return _key(cell.key, name)


def _key(cell_key: str, name: str) -> str:
    check_choice("a further measure", name, FURTHER)
    fields = {"cell": cell_key, "measure": name, "version": FURTHER[name]}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def measure_further(cell: Cell, name: str, device: str = "cpu", deadline: float = math.inf) -> dict:
    """Train one cell again and return the row of one further measure, as the store takes it.

    "jacobian_change": E_x ||J_t - J_0||, E_x ||J_0|| and E_x ||J_T||, in the spectral (jacobian_) and the Frobenius
        (frobenius_) norm, over 100 fixed test points; the change over time at the 7 FRACTIONS of training, too.
        Source: [W Lemma 4] bounds it.
    "attack": at the end, over 200 fixed test points, P(f, eps)/eps of logits and of softmax(f) (also over 200 fixed
        training points); the mean and the largest local Lipschitz constant ||J||_2; the mean margin f_y - max over
        k != y of f_k, and the mean norm of the logits, centred over the classes; the accuracy, and that under FGSM
        and PGD (see attacks.py) in l2 at radius 0.5, 1, 2 and in linf at 0.02, 0.05, 0.1, in the scaling of the
        cell's own points and without a box. spectral_product: prod_l ||W_l||_2 / alpha. None: softmax and centred
        logits of one output; the product of a network that is not fully connected, or where no float holds it.
    Raises InputError on an unknown name, OutOfTimeError when time.time() passes the deadline.
    """
    check_choice("a further measure", name, FURTHER)
    return _as_further(measure_further_group([cell], device, deadline, name=name)[0], name)


def _as_further(row: dict, name: str) -> dict:
    """The row of a training as that of a further measure: a failed one has none of its numbers either."""
    own = {"key": _key(row["key"], name), "cell_key": row["key"], "measure": name, "version": FURTHER[name]}
    return row | own | ({"measures": dict.fromkeys(COLUMNS[name])} if row["status"] == "failed" else {})


# ------------------------------------------------------------------------------------------------ measuring


@in_its_precision
def measure_further_group(
    cells: Sequence[Cell], device: str = "cpu", deadline: float = math.inf, *, name: str
) -> list[dict]:
    """Train the cells of one group as `measures.measure_group` does; the rows are keyed by their cells still."""
    started, cell = time.time(), cells[0]
    dtype = torch.float64 if cell.precision == "float64" else torch.float32
    data = _dataset(cell.dataset, cell.scaling, device, dtype, dataset_info(cell.dataset).sha256)
    x, y = data.x_train[: cell.train_points], data.y_train[: cell.train_points]
    test = fixed_points(len(data.x_test), POINTS[name], "test points").to(device)
    same = fixed_points(len(x), POINTS[name], "train points").to(device)
    followed = fixed_points(len(x), LOSS_POINTS[cell.model], "loss points").to(device)
    x_followed, y_followed = x[followed], targets(y[followed], cell, dtype)
    x_test, y_test, x_same = data.x_test[test], data.y_test[test], x[same]

    nets = engine_of(cell)(cells, device, dtype)
    several = range(len(cells))
    models = [_model(nets, s) for s in several]
    start = [_jacobians(models[s], x_test) if name == "jacobian_change" else None for s in several]
    traces = [{trace: [] for trace in TRACES if trace in COLUMNS[name]} for _ in several]
    reasons, going = [None for _ in several], [True for _ in several]
    loss_steps, looks = (
        {round(f * cell.steps) for f in EVALUATION_POINTS},
        Counter(round(f * cell.steps) for f in FRACTIONS),
    )
    stop_steps = frozenset().union(*(c.stop_steps for c in cells))

    def observe(step: int) -> list[bool]:
        """As in `measure_group`: a network that diverged, or met its stop_loss, does not go on."""
        if time.time() > deadline:
            raise OutOfTimeError
        may_stop = step in stop_steps
        losses = mean_losses(nets, x_followed, y_followed, cell) if may_stop or looks[step] else None
        for s in several:
            if losses and going[s] and not math.isfinite(losses[s]):
                going[s], reasons[s] = False, f"the training loss is {losses[s]} at step {step}"
            if not going[s]:
                continue
            if looks[step] and traces[s]:
                for trace, value in zip(TRACES, _norms(_jacobians(models[s], x_test) - start[s]), strict=True):
                    traces[s][trace] += [value] * looks[step]
            going[s] = not (may_stop and losses[s] <= (cells[s].stop_loss or 0))
        return going

    nets.train(x, y, evaluate_at={*loss_steps, *looks, *stop_steps}, observe=observe)
    losses = mean_losses(nets, x_followed, y_followed, cell)
    rows = []
    for s in several:
        measures = dict.fromkeys(COLUMNS[name])
        if not reasons[s]:
            found = {"loss_at_end": losses[s]} | traces[s]
            if name == "jacobian_change":
                found |= _changes(models[s], x_test, start[s])
                scale = found["jacobian_end"]
            else:
                found |= _attack(models[s], x_test, y_test, x_same, cell)
                scale = found["logit_stability"]
            bad = [column for column, value in found.items() if not _finite(value)]
            if bad:
                reasons[s] = f"{bad[0]} is not finite"
            elif scale == 0:
                reasons[s] = "every hidden unit is dead: the stability is exactly 0"
            else:
                measures |= found
        status, facts = "diverged" if reasons[s] else "ok", {"engine": nets.name, "group": len(cells)}
        rows.append(row_of(cells[s], status, device, started, measures=measures, reason=reasons[s], **facts))
    return rows


def _model(nets, s: int) -> nn.Module:
    """Network s as a module on the engine's own weights: it follows the training without a copy."""
    if isinstance(nets, Loop):
        return nets.model
    model = build(nets.cells[s])
    model.weights = nn.ParameterList(nn.Parameter(w, requires_grad=False) for w in nets.network(s))
    return model


def _jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """The Jacobian of `model` at each point: (n, d_out, d_in)."""
    return torch.cat([jacobian(model, part) for part in x.split(50)])


def _norms(jacobians: Tensor) -> tuple[float, float]:
    """E ||J||_2 and E ||J||_F over the points."""
    eigenvalues = torch.cat([gram_eigenvalues(part) for part in jacobians.split(50)])
    return eigenvalues[:, -1].sqrt().mean().item(), eigenvalues.sum(1).sqrt().mean().item()


def _changes(model: nn.Module, x: Tensor, start: Tensor) -> dict:
    end, found = _jacobians(model, x), {}
    for when, matrices in (("init", start), ("end", end), ("change", end - start)):
        found[f"jacobian_{when}"], found[f"frobenius_{when}"] = _norms(matrices)
    return found


def _attack(model: nn.Module, x: Tensor, y: Tensor, x_same: Tensor, cell: Cell) -> dict:
    def softmax(z):
        return torch.softmax(model(z), 1)

    lipschitz, parity, several = attacks.lipschitz_constants(model, x), cell.target == "parity", cell.d_out > 1
    found = {"lipschitz_mean": lipschitz.mean().item(), "lipschitz_max": lipschitz.max().item()}
    product = attacks.spectral_product(model.weights, alpha=model.alpha) if isinstance(model, FCN) else math.inf
    found["spectral_product"] = product if math.isfinite(product) else None
    for output, function in (("logit", model), ("softmax", softmax)):
        for part, points in (("", x), ("_train", x_same)):
            value = _stability(function, points) if several or function is model else None
            found[f"{output}_stability{part}"] = value
    with torch.no_grad():
        logits = model(x).double()
    margins = attacks.margins(logits, y, parity=parity)
    found |= {"margin": margins.mean().item(), "accuracy": (margins > 0).double().mean().item()}
    centred = logits - logits.mean(1, keepdim=True)
    found["logit_norm"] = centred.norm(dim=1).mean().item() if several else None
    for norm, radii in cell_module.RADII.items():
        for name, values in attacks.attacked_accuracies(model, x, y, radii, norm=norm, parity=parity).items():
            found |= {cell_module.column(name, norm, r): value for r, value in zip(radii, values, strict=True)}
    return found


def _stability(function, x: Tensor) -> float:
    # As perturbation_stability, but NaN where that refuses: a network that overflows is a row, not an error.
    eigenvalues = torch.cat([gram_eigenvalues(jacobian(function, part)) for part in x.split(50)])
    return norm_in_ball(eigenvalues, x[0].numel()).mean().item()
