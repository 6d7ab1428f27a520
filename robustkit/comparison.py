"""Several models beside one another on the same points: how many times as stable one is as another."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas
import torch
from torch import Tensor, nn

from . import progress, stability
from .checks import InputError


def compare(
    models: Mapping[str, object],
    x,
    y: Tensor | None = None,
    *,
    radius=1.0,
    method="exact",
    draws=1,
    generator=None,
    chunk=None,
    device=None,
) -> pandas.DataFrame:
    """One row per model: P/eps, its standard error, P/eps relative to the logits, and its ratio to the first model's.

    ratio = sum_i v_i / sum_i w_i, with v_i and w_i the values of a model and of the first at the same point, and in
    the same directions if these are sampled. Its 95 % interval [ratio_low, ratio_high] is paired over the n points:
    ratio * exp(+- 1.96 s / ratio), s^2 = sum_i (v_i - ratio w_i)^2 / (n (n - 1)) / mean(w)^2 (delta method).
    x: points (n, *shape), or an iterable of batches or of (batch, labels), which is gone through once and kept.
    y: classes (n,) of the points; with these, or labels, the rows have loss (mean cross entropy) and accuracy.
    radius, method, draws, generator, chunk, device: as in `perturbation_stability`. Raises ValueError as it does, and
    says for which model, and InputError without models or where labels are no classes. Source: ours.
    """
    if not isinstance(models, Mapping) or not models:
        raise InputError(
            f"models is {type(models).__name__}, but must be a dictionary of one or more, by their names"
        )
    batches = [x] if isinstance(x, Tensor) else list(x)
    if y is None and not isinstance(x, Tensor) and all(isinstance(b, tuple | list) and len(b) == 2 for b in batches):
        y = torch.cat([torch.as_tensor(labels) for _, labels in batches]) if batches else None
    seed = int(torch.randint(2**62, (), generator=generator, device=getattr(generator, "device", "cpu")))
    rows, values = [], []
    for name, model in models.items():
        same = torch.Generator().manual_seed(seed)
        points = x if isinstance(x, Tensor) else batches
        points = progress.shown(points, str(name), method, chunk)
        options = {"radius": radius, "method": method, "draws": draws, "chunk": chunk, "device": device}
        try:
            estimate = stability.perturbation_stability(model, points, generator=same, **options)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        logits = _logits(model, stability.blocks(batches, chunk, "exact", device))
        scale = (logits - logits.mean(1, keepdim=True)).norm(dim=1).mean().item()
        values.append(estimate.values)
        row = {"model": name, "n": estimate.n, "stability": estimate.mean, "stability_sem": estimate.sem}
        row["relative_stability"] = estimate.mean / scale if scale else math.nan
        row |= dict(zip(("ratio", "ratio_low", "ratio_high"), _ratio(values[-1], values[0]), strict=True))
        rows.append(row | ({} if y is None else _quality(name, logits, y)))
    return pandas.DataFrame(rows)


def _ratio(values: Tensor, first: Tensor) -> tuple[float, float, float]:
    n, mean = len(first), first.mean().item()
    ratio = values.mean().item() / mean if mean else math.nan
    if n == 1 or not ratio > 0:
        return ratio, math.nan, math.nan
    error = math.sqrt((values - ratio * first).square().sum().item() / (n * (n - 1))) / mean
    factor = math.exp(1.96 * error / ratio)
    return ratio, ratio / factor, ratio * factor


def _logits(model, blocks) -> Tensor:
    parts = []
    for points, _ in blocks:
        with stability.undisturbed(model, points):
            parts.append(model(points.clone()).cpu().double())  # a copy, as the first layer may work in place
    return torch.cat(parts)


def _quality(name: str, logits: Tensor, y: Tensor) -> dict[str, float]:
    y, classes = torch.as_tensor(y).cpu(), logits.shape[1]
    if y.shape != logits.shape[:1] or y.is_floating_point() or not 0 <= int(y.min()) <= int(y.max()) < classes:
        got = f"{y.dtype} of shape {tuple(y.shape)}, from {y.min()} to {y.max()}"
        raise InputError(f"labels are {got}, but must be integers (n,) from 0 to {classes - 1}, for {name}")
    loss = nn.functional.cross_entropy(logits, y.long()).item()
    return {"loss": loss, "accuracy": (logits.argmax(1) == y).double().mean().item()}
