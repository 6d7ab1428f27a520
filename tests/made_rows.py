"""Rows made up for the tests: of a known stability, or of a known truth over width and depth."""

import dataclasses
import json

import numpy as np
import pandas

from robustkit.cell import EVALUATION_POINTS, FRACTIONS, Cell, measure_key, schedule_name
from robustkit.sweep import train_missing
from robustkit.training.measures import MEASURES

DEPTHS = (2, 4, 6, 8, 10)
WIDTHS = tuple(2**k for k in range(4, 15))  # the paper's


def a_row(value, *, width, depth=2, seed=0, status="ok", **fields):
    """A row whose stability is `value`, at each of the seven evaluation points times 1, 2, .., 7."""
    cell = Cell(width=width, depth=depth, seed=seed, epochs=50, points=256, **fields)
    measures = dict.fromkeys(MEASURES)
    if status == "ok":
        measures |= {name: value for name in ("stability", "stability_init", "train_loss", "test_accuracy", "kappa")}
        measures["stability_over_time"] = [value * k for k in range(1, 8)]
        measures["kappa_over_time"] = measures["loss_over_time"] = [value * k for k in range(51)]
    row = {"key": cell.key, "status": status, "reason": None if status == "ok" else "no luck", "seconds": 1.0}
    return row | {"cell": dataclasses.asdict(cell), "measures": measures, "engine": {}, "versions": {}, "commit": ""}


def a_stored_row(name="a", stability=0.1, *, measure=None, **changes):
    """A row of a cell of its own for each name; of one of its further measures, if there is one."""
    cell = Cell(width=16, depth=2, seed=int.from_bytes(name.encode()))
    row = {
        "key": cell.key if measure is None else measure_key(cell.key, measure, 1),
        "status": "ok",
        "cell": json.loads(json.dumps(cell.as_dict())),
        "reason": None,
        "measures": {"stability": stability, "kappa_over_time": [0.0, 1 / 3]},
        "engine": {"name": "loop", "device": "cpu", "vectors": "AVX2"},
        "versions": {"torch": "2.13.0"},
        "seconds": 1.5,
    }
    return row | ({} if measure is None else {"cell_key": cell.key, "measure": measure, "version": 1}) | changes


def a_frame(*rows, missing=()):
    frame = train_missing.to_frame(rows)
    frame.attrs["missing"] = list(missing)
    return frame


def a_run(generator, width, depth, seed, init, stability, *, kappa=0.2, growth=None, sd=0.02, **fields):
    """One row as the store gives it; `growth` is the shape of kappa over the 51 evaluation points."""
    power = {"power": fields.pop("power", 2.0)} if init == "power" else {}
    cell = Cell(
        width=width, depth=depth, seed=seed, init=init, **power, **({"dataset": "mnist", "lr": 0.001} | fields)
    )
    noise, wobble = np.exp(sd * generator.standard_normal(2))
    losses = np.array([2.3, 2.2, 1.8, 1.2, 0.7, 0.4, 0.2])
    shape = np.array([growth(t) for t in EVALUATION_POINTS] if growth else [1.0] * 51)
    return {name: getattr(cell, name) for name in Cell.__dataclass_fields__} | {
        "key": str(generator.random()),
        "status": "ok",
        "schedule": schedule_name(cell.epochs, cell.lr),
        "stability": stability * noise,
        "stability_init": stability * noise,
        "stability_train": stability * noise,
        "lipschitz_mean": 3 * stability * noise,
        "lipschitz_max": 4 * stability * noise,
        "kappa": kappa * wobble,
        "train_loss": 0.2,
        "test_accuracy": 0.95,
        "movement_over_time": [[kappa * fraction] * depth for fraction in FRACTIONS],
        "kappa_over_time": list(kappa * wobble * shape / shape[-1]),
        "stability_over_time": list(stability * noise * (0.5 + 0.5 * np.array(FRACTIONS))),
        "loss_at_stability": list(losses),
    }


def frame(truth, *, inits=("he",), depths=DEPTHS, widths=WIDTHS, seeds=3, **fields):
    """Rows of stability truth(width, depth) for each initialisation, depth, width and seed."""
    generator = np.random.default_rng(0)
    rows = [
        a_run(generator, m, depth, seed, init, truth(m, depth), **fields)
        for init in inits
        for depth in depths
        for m in widths
        for seed in range(seeds)
    ]
    return pandas.DataFrame(rows)


def level(width, depth):
    return 1.0
