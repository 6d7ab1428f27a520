"""Further measures, which the row of a run does not hold: its cell is trained again from the seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .. import attacks
from ..cell import ATTACKS, EVALUATION_POINTS, RADII, Cell, column, measure_key
from ..networks import FCN, build
from ..stability import gram, jacobian, norm_in_ball, spectrum
from .group import GroupRun, mean_losses
from .loop import Loop
from .measures import ball_norms

CHUNK = 50  # points whose Jacobians are held at once


class Further(GroupRun):
    """A further measure; a subclass says by `measured(s)` what network s gives at the end.

    loss_at_end is the last loss_over_time of the run's own row, if the same network was trained again.
    """

    version: int  # part of its rows' keys: raised when an edit changes what they mean

    @classmethod
    def identity(cls, cell: Cell) -> dict:
        """Its key: SHA-256 of the cell's key, the measure's name and its version, in canonical JSON."""
        key = measure_key(cell.key, cls.name, cls.version)
        return {"key": key, "cell_key": cell.key, "measure": cls.name, "version": cls.version}

    def model(self, s: int) -> nn.Module:
        """Network s as a module on the engine's own weights: it follows the training without a copy."""
        if isinstance(self.nets, Loop):
            return self.nets.model
        model = build(self.cells[s])
        model.weights = nn.ParameterList(nn.Parameter(w, requires_grad=False) for w in self.nets.network(s))
        return model

    def final(self, sound: Sequence[int]) -> Iterator[dict]:
        losses = mean_losses(self.nets, *self.followed, self.cell)
        for s in sound:
            yield {"loss_at_end": losses[s]} | self.measured(s)


class JacobianChange(Further):
    """E_x ||J_t - J_0||, E_x ||J_0|| and E_x ||J_T|| over fixed test points; the first also at the FRACTIONS.

    Both in the spectral norm (jacobian_) and in the Frobenius norm (frobenius_). Source: [W Lemma 4] bounds it.
    """

    name, version, points, scale = "jacobian_change", 1, 100, "jacobian_end"
    columns = (
        *("loss_at_end", "jacobian_init", "jacobian_end", "jacobian_change", "jacobian_change_over_time"),
        *("frobenius_init", "frobenius_end", "frobenius_change", "frobenius_change_over_time"),
    )

    def begin(self) -> None:
        self.models = [self.model(s) for s in range(len(self.cells))]
        self.start = [_jacobians(model, self.x_test) for model in self.models]

    def observe(self, step: int, losses: list[float] | None) -> None:
        times = self.stability_times[step]
        for model, start, note in zip(self.models, self.start, self.notes, strict=True):
            if times and note["going"]:
                for norm, value in _norms(_jacobians(model, self.x_test) - start).items():
                    note["trace"][f"{norm}_change_over_time"] += [value] * times

    def measured(self, s: int) -> dict:
        start, end = self.start[s], _jacobians(self.models[s], self.x_test)
        moments = {"init": start, "end": end, "change": end - start}
        return {f"{norm}_{when}": v for when, matrices in moments.items() for norm, v in _norms(matrices).items()}


class Attack(Further):
    """Stability of logits and softmax, Lipschitz constants, margin and accuracy under attack at the end of the run.

    P(f, eps)/eps of the logits and of softmax(f), over fixed test points and over fixed training points (_train); the
    mean and the largest local Lipschitz constant ||J||_2; spectral_product: prod_l ||W_l||_2 / alpha; the mean margin
    f_y - max over k != y of f_k; the mean norm of the logits, centred over the classes; the accuracy, and that under
    FGSM and PGD (see attacks.py) at each of the RADII, in the scaling of the cell's own points and without a box.
    None: softmax and centred logits of one output; the product of a network that is not fully connected, or where no
    float holds it.
    """

    name, version, points, scale = "attack", 2, 200, "logit_stability"
    columns = (
        *("loss_at_end", "logit_stability", "logit_stability_train", "softmax_stability", "softmax_stability_train"),
        *("lipschitz_mean", "lipschitz_max", "spectral_product", "margin", "logit_norm", "accuracy"),
        *(column(attack, norm, radius) for attack in ATTACKS for norm, radii in RADII.items() for radius in radii),
    )

    def measured(self, s: int) -> dict:
        model, x, y, parity = self.model(s), self.x_test, self.y_test, self.cell.target == "parity"
        several, lipschitz = self.cell.d_out > 1, attacks.lipschitz_constants(model, x)
        product = attacks.spectral_product(model.weights, alpha=model.alpha) if isinstance(model, FCN) else math.inf
        with torch.no_grad():
            logits = model(x).double()
        margins, centred = attacks.margins(logits, y, parity=parity), logits - logits.mean(1, keepdim=True)

        def softmax(z: Tensor) -> Tensor:
            return torch.softmax(model(z), 1)

        measured = {
            "lipschitz_mean": lipschitz.mean().item(),
            "lipschitz_max": lipschitz.max().item(),
            "spectral_product": product if math.isfinite(product) else None,
            "logit_stability": _stability(model, x),
            "logit_stability_train": _stability(model, self.x_train),
            "softmax_stability": _stability(softmax, x) if several else None,
            "softmax_stability_train": _stability(softmax, self.x_train) if several else None,
            "margin": margins.mean().item(),
            "accuracy": (margins > 0).double().mean().item(),
            "logit_norm": centred.norm(dim=1).mean().item() if several else None,
        }
        for norm, radii in RADII.items():
            attacked = attacks.attacked_accuracies(model, x, y, radii, norm=norm, parity=parity)
            for attack, accuracies in attacked.items():
                measured |= {column(attack, norm, r): value for r, value in zip(radii, accuracies, strict=True)}
        return measured


class StabilityPath(Further):
    """P(f, eps)/eps at each of the EVALUATION_POINTS, where a run's own row has it at the seven FRACTIONS alone."""

    name, version, points, scale = "stability_path", 1, 1000, "stability"
    columns = ("loss_at_end", "stability", "path_over_time")

    def begin(self) -> None:
        self.path_times = Counter(round(f * self.cell.steps) for f in EVALUATION_POINTS)
        self.loss_steps |= set(self.path_times)

    def observe(self, step: int, losses: list[float] | None) -> None:
        if times := self.path_times[step]:
            for value, note in zip(ball_norms(self.nets, self.x_test)[0].mean(1).tolist(), self.notes, strict=True):
                note["trace"]["path_over_time"] += [value] * (times if note["going"] else 0)

    def measured(self, s: int) -> dict:
        return {"stability": self.notes[s]["trace"]["path_over_time"][-1]}


FURTHER: dict[str, type[Further]] = {kind.name: kind for kind in (JacobianChange, Attack, StabilityPath)}


def _jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """The Jacobian of `model` at each point: (n, d_out, d_in)."""
    return torch.cat([jacobian(model, part) for part in x.split(CHUNK)])


def _norms(jacobians: Tensor) -> dict[str, float]:
    """Means of ||J||_2 and of ||J||_F over the points."""
    eigenvalues = torch.cat([spectrum(gram(part)) for part in jacobians.split(CHUNK)])
    return {"jacobian": eigenvalues[:, -1].sqrt().mean().item(), "frobenius": eigenvalues.sum(1).sqrt().mean().item()}


def _stability(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    # As perturbation_stability, but NaN where that refuses: a network that overflows is a row, not an error.
    eigenvalues = torch.cat([spectrum(gram(jacobian(function, part))) for part in x.split(CHUNK)])
    return norm_in_ball(eigenvalues, x[0].numel()).mean().item()
