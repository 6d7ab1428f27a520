"""The profiles smoke, laptop, paper and shipped, and the cells (runs to train) behind each figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

from .cell import Cell
from .checks import InputError, check_choice

# ------------------------------------------------------------------------------------------------ profiles

PROFILES = ("smoke", "laptop", "paper", "shipped")  # shipped: the laptop's cells as results/shipped.jsonl holds them
PAPER_DEPTHS, PAPER_WIDTHS = (2, 4, 6, 8, 10), tuple(2**k for k in range(4, 15))

_MNIST = {"dataset": "mnist", "epochs": 50, "lr": 0.001, "points": 1000}
SETTINGS = {
    "smoke": {"dataset": "digits", "epochs": 50, "lr": 0.04, "points": 256},
    "laptop": _MNIST,
    "paper": _MNIST,
}
WIDTHS = {"smoke": PAPER_WIDTHS[:5], "laptop": PAPER_WIDTHS[:6], "paper": PAPER_WIDTHS}
DEPTHS = {"smoke": (2, 4, 6), "laptop": PAPER_DEPTHS, "paper": PAPER_DEPTHS}
# The widest two-layer networks of a laptop: (init, power) -> width. He and c = 2 have the paper's whole grid.
TWO_LAYERS = {("he", None): 16384, ("power", 2.0): 16384, ("power", 1.5): 4096}
TWO_LAYERS |= {("power", 1.0): 1024, ("power", 3.0): 1024}
OVER_WIDTH = ("N2", "N3", "N4a", "N4b", "W7")  # the figures that they are in: P or kappa against width

# The short schedule, "flow10" in the data: a tenth of the paper's steps at ten times its learning rate. It stands in
# where the paper's would take a laptop too long.
SHORT = {"epochs": 5, "lr": 0.01}

# ------------------------------------------------------------------------------------------------ the paper's figures

# The curves behind each figure: (init, power, its depths; None for all of the profile's).
FIGURES = {
    "N2": [("he", None, (2,))],
    "N3": [("power", 2.0, (2,))],
    "N4a": [("he", None, None)],
    "N4b": [("he", None, (2,)), ("power", 2.0, (2,))],
    "N5a": [("he", None, None)],
    "N5b": [("lecun", None, None)],
    "W7": [("power", c, (2,)) for c in (1.0, 1.5, 2.0, 3.0)],
    "W6": [("he", None, (4, 6, 8, 10))],
    "WT4": [("he", None, None), ("power", 2.0, None)],
}

# W6, Figure 6 of the workshop version: a CNN under two heads, and the fully connected network beside it, on a laptop
# under the short schedule. Averaging over the image divides the gradient: at the paper's learning rate the pooled
# CNNs hardly leave their initial weights, so they run at ten times the learning rate as well.
CNN_WIDTHS = {"smoke": (8, 16), "laptop": (8, 16, 32, 64), "paper": (8, 16, 32, 64, 128, 256)}

# WT4, its Table 4: the published recipe; scaled down where there is no GPU, which only checks the pipeline.
RECIPE = {"model": "resnet", "scaling": "standard", "batch_size": 128, "lr": 0.1, "milestones": (81 / 164, 122 / 164)}
RECIPE |= {"momentum": 0.9, "weight_decay": 1e-4}
_CIFAR = {"depth": 110, "epochs": 164, "augment": "crop_flip", "precision": "tf32"}
RESNETS = {
    "smoke": [{"depth": 8, "dataset": "digits", "epochs": 10, "points": 64}],
    "laptop": [{"depth": 20, "dataset": "mnist", "n_train": 10_000, "epochs": 8, "points": 256}],
    "paper": [_CIFAR | {"dataset": name} for name in ("cifar10", "cifar100")],
}

# ------------------------------------------------------------------------------------------------ beside the figures

# Readings of what the paper leaves open, each of Figures 4 and 5: name -> (its fields, its depths, its widths; None
# for the profile's). On MNIST under the short schedule. They stand beside the main reading, never pooled with it.
READINGS = {
    "unit": ({"scaling": "unit"}, None, None),
    "standard": ({"scaling": "standard"}, (2, 6), None),
    "flow10": ({}, None, (*WIDTHS["laptop"], 1024, 2048)),
}


def _seeds_of_theorem1(init: str, width: int) -> int:
    """More seeds where they scatter more."""
    if init != "he":
        return 5 if width <= 128 else 3
    return 20 if width == 16 else 10 if width <= 64 else 5 if width <= 1024 else 3


# Runs for what the ledger asks and no figure shows: name -> (curves as in FIGURES, their fields, widths (None for the
# profile's), number of seeds or a function that says it of an init and width). On MNIST under the short schedule
# unless they have their own or end in _full: it changes P of deep NTK networks, of those with a gain, and of those at
# a learning rate in 1/m.
_TWO = [("he", None, (2, 6)), ("power", 2.0, (2,))]
_THEOREM = {"milestones": (), "scaling": "unit", "loss": "squared"}  # constant learning rate, Assumption 1
_TO_A_LOSS = _THEOREM | {"lr": 0.1, "stop_loss": 0.2}
_THREE = [(init, None, None) for init in ("he", "lecun", "ntk")]
_SCALAR = _THEOREM | {"target": "parity", "epochs": 400}  # one output, trained on the parity of the class
_NON_LAZY = [("power", c, (2,)) for c in (1.5, 2.0, 3.0)]
_FAR = (64, 256, 1024, 4096, 16384)
CONTROLS = {
    "ntk": ([("ntk", None, None), ("he", None, (2,)), ("lecun", None, (2,))], {}, None, 3),
    "ntk_full": ([("ntk", None, None)], {}, (16, 64, 128, 256), 3),
    "inverse_width": ([*_TWO, ("ntk", None, (2, 6))], {"lr_rule": "inverse_width"}, None, 3),
    "inverse_width_full": ([("he", None, (2, 6))], {"lr_rule": "inverse_width"}, (16, 64, 32, 128, 256), 3),
    "common_loss": (_TWO, {"milestones": (), "epochs": 10, "stop_loss": 0.5}, None, 3),
    "constant_rate": ([("he", None, (2,)), ("power", 2.0, (2,))], {"milestones": ()}, (16, 64, 256), 3),
    **dict.fromkeys(("gain", "gain_full"), ([("gain", None, None)], {"gain": 1.25}, (64,), 3)),
    # Under the hypotheses of Theorem 1: every network to one training loss, which is looked at every 20 steps.
    "theorem1": (_THREE, _TO_A_LOSS | {"stop_every": 20}, PAPER_WIDTHS[:8], _seeds_of_theorem1),
    "theorem1_wide": ([("he", None, (2, 4))], _TO_A_LOSS | {"stop_every": 20}, (4096,), 3),
    "lemma4": ([("he", None, (2, 4))], _TO_A_LOSS, None, 3),  # for what further runs measured (T06)
    "early": (_THREE[:2], {"milestones": (), "epochs": 5, "lr": 0.001}, (1024, 2048), 3),
    "theorem2": ([("power", 2.0, (2,))], _SCALAR | {"dataset": "digits", "lr": 0.1}, (64, 256, 1024, 4096), 5),
}
# By full batches to one loss at a learning rate in 1/m: towards the limit of infinite width (benchmarks).
_KERNEL = _TO_A_LOSS | {
    "n_train": 1000,
    "batch_size": 1000,
    "epochs": 1000,
    "lr_rule": "inverse_width",
    "stop_every": 1,
}
_ON_DIGITS = _KERNEL | {"dataset": "digits"}
CONTROLS |= {
    "kernel": ([("he", None, (2, 4)), ("lecun", None, (2, 4))], _KERNEL | {"lr": 2.0}, PAPER_WIDTHS[2:7], 3),
    "kernel_wide": ([("he", None, (2,))], _KERNEL | {"lr": 2.0}, PAPER_WIDTHS[7:9], 3),
    "kernel_digits": ([("he", None, (2, 4)), ("ntk", None, (2, 4))], _ON_DIGITS, PAPER_WIDTHS[2:7], 5),
    "kernel_digits_wide": ([("he", None, (2,)), ("ntk", None, (2,))], _ON_DIGITS, PAPER_WIDTHS[7:9], 5),
}
LARGE = ("theorem1_wide", "early", "kernel", "kernel_wide", "kernel_digits", "kernel_digits_wide")  # not in smoke
for _n, _widths in ((8, _FAR), (16, _FAR), (32, (*_FAR, 32768))):  # full batches; the widest exceed 10 n^2
    _own = _SCALAR | {"n_train": _n, "batch_size": _n, "points": 100, "lr": 0.05}
    CONTROLS[f"theorem3_n{_n}"] = (_NON_LAZY, _own, _widths, 3)

# The short schedule is compared with the paper's on cells of these kinds: kind -> (width, depths). Figures 4 and 5
# serve for "flow10", and the controls that end in _full for "ntk", "gain" and some of "inverse_width".
TWINS = dict.fromkeys(("unit", "standard", "inverse_width"), (64, (2, 6))) | {"W6": (8, (4, 10))}

# The runs that are repeated for a further measure: its name -> (figures or controls, choices in place of the
# profile's). Smoke takes every second width.
REPEATED = {
    "jacobian_change": (("lemma4",), {}),
    "stability_path": (("N4b", "W7"), {"widths": PAPER_WIDTHS[:6]}),
    "attack": (("N4a", "N3"), {"seeds": range(3), "depths": (2, 6, 10), "widths": (16, 32, 64, 128)}),
}

# What the "Your turn" cells of the notebooks show until a reader changes them, so that a report need not train it:
# fields of the network, and what it stands among.
_AMONG = {"width": (16, 64, 128), "depth": (2, 4), "seed": (0, 1)}
YOUR_TURN = [
    ({"init": "ntk", "width": 32, "depth": 3}, _AMONG),
    ({"init": "he", "width": 32, "depth": 3}, _AMONG),
    ({"init": "lecun", "width": 32, "depth": 5}, {"depth": (2, 4, 6), "width": (16, 64), "seed": (0, 1)}),
    ({"init": "power", "power": 1.25, "width": 32}, _AMONG | {"depth": (2,), "power": (1.0, 1.5, 2.0)}),
    ({"model": "cnn", "head": "pooling", "width": 12, "depth": 4}, {"width": (8, 16), "depth": (4, 6)}),
]

# The names that each notebook draws, by its number; 06 judges all of them.
NOTEBOOKS = {
    "00": (),
    "01": ("N2", "N3", "W7", "constant_rate", "N4a", "N5b", "ntk"),
    "02": ("N4a", "flow10", "theorem1", "theorem1_wide", "jacobian_change", "N4b", "ntk_full")
    + ("inverse_width", "inverse_width_full", "common_loss", "early"),
    "03": ("N5a", "N5b", "theorem1", "unit", "ntk_full", "gain_full"),
    "04": ("W7", "N3", "theorem2", "theorem3_n8", "theorem3_n16", "theorem3_n32"),
    "05": ("W6", "WT4", "attack"),
    "06": ("all",),
}


# ------------------------------------------------------------------------------------------------ cells


def named_cells(name: str, profile: str, *, seeds=None, widths=None, depths=None, **fields) -> list[Cell]:
    """The cells of a figure, a reading, a control, a further measure, "twins", "your_turn", or "all" of a profile.

    Keywords replace the profile's choices. Empty where none of the depths occurs. Raises InputError on an unknown
    name, profile or field, and on a list that is empty or repeats itself.
    """
    check_choice("figure", name, (*FIGURES, *READINGS, *CONTROLS, *REPEATED, *SEVERAL))
    check_choice("profile", profile, PROFILES)
    for field in ("width", "depth", "seed"):
        if field in fields:
            raise InputError(f"{field} is {fields[field]!r}, but a grid takes {field}s, a list")
    seeds, widths, depths = _list("seeds", seeds), _list("widths", widths), _list("depths", depths)
    if name in SEVERAL:
        return SEVERAL[name](profile, seeds=seeds, widths=widths, depths=depths, **fields)
    if name in REPEATED:
        figures, own = REPEATED[name]
        own = own | ({"widths": own["widths"][::2]} if profile == "smoke" and "widths" in own else {})
        given = {"seeds": seeds, "widths": widths, "depths": depths}
        choices = own | {choice: values for choice, values in given.items() if values} | fields
        return list(dict.fromkeys(cell for figure in figures for cell in named_cells(figure, profile, **choices)))
    profile = "laptop" if profile == "shipped" else profile
    smoke, base = profile == "smoke", SETTINGS[profile]
    seeds = seeds or (range(2) if smoke else None)
    if name in ("W6", "WT4"):
        draw = _figure_6 if name == "W6" else _table_4
        return draw(profile, seeds or range(3), widths, depths, fields)
    depths = depths or DEPTHS[profile]
    if name in FIGURES:
        widths = widths or (None if name in OVER_WIDTH else WIDTHS[profile])
        return _cells(FIGURES[name], profile, seeds, widths, depths, base | fields)
    base = base if smoke or name.endswith("_full") else base | SHORT
    if name in READINGS:
        own, own_depths, own_widths = READINGS[name]
        curves = [curve for figure in ("N4a", "N4b", "N5b") for curve in FIGURES[figure]]
        depths = [depth for depth in depths if own_depths is None or depth in own_depths]
        widths = widths or ((16, 64, 256) if smoke else own_widths or WIDTHS[profile])
        return _cells(curves, profile, seeds or range(3), widths, depths, base | own | fields)
    curves, own, own_widths, count = CONTROLS[name]
    if smoke and "target" not in own:
        own = own | {"epochs": base["epochs"]}
    own_widths = own_widths or ((16, 64) if smoke else WIDTHS[profile])
    widths = widths or own_widths[: 2 if smoke else None]
    counted = count if callable(count) else range(count)
    return _cells(curves, profile, seeds or counted, widths, depths, base | own | fields)


grid = named_cells  # as notebooks call it


def _cells(curves: Iterable, profile: str, seeds, widths, depths: Sequence, fields: dict) -> list[Cell]:
    """The cells of curves (see FIGURES), each once; with seeds None fewer of them where a run is expensive."""
    cells = [
        Cell(**{"init": init, "power": power, "depth": depth, "width": width, "seed": seed} | fields)
        for init, power, own_depths in curves
        for depth in depths
        if own_depths is None or depth in own_depths
        for width in widths or _reach(profile, init, power, depth)
        for seed in (range(seeds(init, width)) if callable(seeds) else seeds or range(5 if width <= 256 else 3))
    ]
    return list(dict.fromkeys(cells))


def _reach(profile: str, init: str, power: float | None, depth: int) -> tuple[int, ...]:
    """The widths of a curve: on a laptop two-layer networks, which cost little, reach further than deep ones."""
    last = TWO_LAYERS.get((init, power), 0) if profile == "laptop" and depth == 2 else 0
    return WIDTHS[profile] + tuple(m for m in PAPER_WIDTHS if WIDTHS[profile][-1] < m <= last)


def _figure_6(profile: str, seeds, widths, depths, fields: dict) -> list[Cell]:
    """CNN under both heads, the fully connected networks beside it; then those at the faster learning rate."""
    smoke = {"epochs": 20, "lr": 0.1}  # the same flow time as the figures
    base = SETTINGS[profile] | {"smoke": smoke, "laptop": SHORT, "paper": {}}[profile] | fields
    own = CNN_WIDTHS[profile]
    models = [({"model": "cnn", "head": head}, own) for head in ("pooling", "flatten")] + [({}, WIDTHS[profile])]
    if profile != "smoke":
        faster, shared = {"lr": base["lr"] * 10}, [m for m in own if m in WIDTHS[profile]]
        models += [({"model": "cnn", "head": "pooling"} | faster, own), (faster, shared)]
    depths, curves = depths or DEPTHS[profile], FIGURES["W6"]
    return [
        cell for model, at in models for cell in _cells(curves, profile, seeds, widths or at, depths, base | model)
    ]


def _table_4(profile: str, seeds, widths, depths, fields: dict) -> list[Cell]:
    """He and non-lazy ResNets, of 16 channels in the first stage, each of its own depth."""
    return [
        cell
        for own in RESNETS[profile]
        if (depths is None or own["depth"] in depths) and (widths is None or 16 in widths)
        for cell in _cells(FIGURES["WT4"], profile, seeds, [16], [own["depth"]], RECIPE | own | fields)
    ]


def _list(name: str, values) -> list | None:
    if values is None:
        return None
    try:
        values = list(values)
        several = len(set(values)) == len(values) > 0
    except TypeError as error:
        raise InputError(f"{name} is {values!r}, but must be a list of numbers") from error
    if not several:
        raise InputError(f"{name} is {values!r}, but must be a non-empty list without duplicates")
    return values


def twin(cell: Cell) -> Cell:
    """The same run under ten times the steps at a tenth of the learning rate: the short schedule's cell made full."""
    return replace(cell, epochs=10 * cell.epochs, lr=cell.lr / 10)


def twin_cells(profile: str, **choices) -> list[Cell]:
    """The cells under the paper's schedule that only check the short one (see TWINS): no figure shows them."""
    if profile not in ("laptop", "shipped"):
        return []
    names = (*FIGURES, *(name for name in CONTROLS if name.endswith("_full")))
    shown = {cell for name in names for cell in named_cells(name, profile, **choices)}
    twins = [
        twin(cell)
        for name, (width, depths) in TWINS.items()
        for cell in named_cells(name, profile, **choices)
        if (cell.width, cell.lr) == (width, SHORT["lr"]) and cell.depth in depths
    ]
    return [cell for cell in dict.fromkeys(twins) if cell not in shown]


def profile_names(profile: str) -> list[str]:
    """The names whose cells a profile trains: every figure, then the readings and controls that it takes."""
    small = ["unit", *(name for name in CONTROLS if name not in LARGE)]
    return [*FIGURES, *(small if profile == "smoke" else (*READINGS, *CONTROLS)), "twins", "your_turn"]


def your_turn_cells(profile: str, *, seeds=None, widths=None, depths=None, **fields) -> list[Cell]:
    """Of smoke, the cells that YOUR_TURN names, as far as they are among the choices."""
    chosen = {"seed": seeds, "width": widths, "depth": depths}
    cells = []
    for own, among in YOUR_TURN if profile == "smoke" else ():
        start = named_cells("W6" if "model" in own else "N4a", "smoke")[0]
        others = [dict(zip(among, values, strict=True)) for values in product(*among.values())]
        cells += [replace(start, **own | other | fields) for other in ({}, *others)]
    return [c for c in dict.fromkeys(cells) if all(v is None or getattr(c, n) in v for n, v in chosen.items())]


def profile_cells(profile: str, **choices) -> list[Cell]:
    """Every cell of a profile, with its readings and controls, cheapest first (not those of REPEATED)."""
    names = profile_names(profile)
    return cheapest_first(cell for name in names for cell in named_cells(name, profile, **choices))


def cheapest_first(cells: Iterable[Cell]) -> list[Cell]:
    """The cells, each once, by the operations of their training."""
    return sorted(dict.fromkeys(cells), key=lambda cell: (cell.flops, cell.seed))


SEVERAL = {"twins": twin_cells, "your_turn": your_turn_cells, "all": profile_cells}
