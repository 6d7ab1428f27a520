"""The profiles smoke, laptop, paper and shipped, and the trainings behind each figure."""

from __future__ import annotations

from dataclasses import replace

from .cell import Cell
from .checks import InputError, check_choice

PROFILES = ("smoke", "laptop", "paper", "shipped")

# What each profile trains on. "shipped" draws the rows that the laptop grid has put into results/shipped.jsonl.
_LAPTOP = {"dataset": "mnist", "epochs": 50, "lr": 0.001, "points": 1000}
SETTINGS = {
    "smoke": {"dataset": "digits", "epochs": 50, "lr": 0.04, "points": 256},
    "laptop": _LAPTOP,
    "paper": _LAPTOP,
    "shipped": _LAPTOP,
}
WIDTHS = {
    "smoke": tuple(2**k for k in range(4, 9)),
    "laptop": tuple(2**k for k in range(4, 10)),
    "paper": tuple(2**k for k in range(4, 15)),
}
DEPTHS = {"smoke": (2, 4, 6), "laptop": (2, 4, 6, 8, 10), "paper": (2, 4, 6, 8, 10)}
WIDTHS["shipped"], DEPTHS["shipped"] = WIDTHS["laptop"], DEPTHS["laptop"]

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

# Figure 6 of the workshop version: a CNN under two heads, and the fully connected net beside it. A laptop takes the
# proxy's schedule, for which see below. Averaging over the image divides the gradient: at the paper's rate the pooled
# nets hardly leave their start, so they run at ten times the rate as well.
HEADS = ("pooling", "flatten")
FASTER = 10
CNN_WIDTHS = {"smoke": (8, 16), "laptop": (8, 16, 32, 64), "paper": (8, 16, 32, 64, 128, 256)}

# Its Table 4: the published recipe, and scaled down where there is no GPU: then a check of the pipeline, no more.
RECIPE = {"model": "resnet", "scaling": "standard", "batch_size": 128, "lr": 0.1, "milestones": (81 / 164, 122 / 164)}
RECIPE |= {"momentum": 0.9, "weight_decay": 1e-4}
RESNETS = {
    "smoke": [{"depth": 8, "dataset": "digits", "epochs": 10, "points": 64}],
    "laptop": [{"depth": 20, "dataset": "mnist", "n_train": 10_000, "epochs": 8, "points": 256}],
    "paper": [
        {"depth": 110, "dataset": name, "epochs": 164, "augment": "crop_flip", "precision": "tf32"}
        for name in ("cifar10", "cifar100")
    ],
}
for _own in (CNN_WIDTHS, RESNETS):
    _own["shipped"] = _own["laptop"]

# Other readings of what the paper leaves open: reading -> (its fields, its depths, its widths; None: the profile's).
# On MNIST they take a tenth of the steps at ten times the rate, the proxy schedule "flow10", which goes on to wider
# nets. They stand beside the main reading and are never pooled with it.
PROXY = {"epochs": 5, "lr": 0.01}
READINGS = {
    "unit": ({"scaling": "unit"}, None, None),
    "standard": ({"scaling": "standard"}, (2, 6), None),
    "flow10": ({}, None, (*WIDTHS["laptop"], 1024, 2048)),
}

# Where the proxy is held against the paper's schedule, kind by kind: (width, depths). The other half of "flow10" are
# Figures 4 and 5, of "ntk", "gain" and some of "inverse_width" the controls that end in _full.
TWINS = dict.fromkeys(("unit", "standard", "inverse_width"), (64, (2, 6))) | {"W6": (8, (4, 10))}

# Runs beside the figures, for what the ledger asks and no figure shows: name -> (curves as in FIGURES, their fields,
# widths (None for the profile's), seeds). On MNIST their schedule is the proxy's unless they have their own or end in
# _full: the proxy moves deep NTK networks, those of a gain, and those at a rate of 1/m (see proxy.py).
_TWO = [("he", None, (2, 6)), ("power", 2.0, (2,))]
_LONG = {"milestones": (), "scaling": "unit", "loss": "squared"}  # constant rate, Assumption 1, the theorems' loss
_SCALAR = _LONG | {"target": "parity", "epochs": 400}
_SMALL = [("power", c, (2,)) for c in (1.5, 2.0, 3.0)]
CONTROLS = {
    "ntk": ([("ntk", None, None), ("he", None, (2,)), ("lecun", None, (2,))], {}, None, 3),
    "ntk_full": ([("ntk", None, None)], {}, (16, 64, 128, 256), 3),
    "inverse_width": ([*_TWO, ("ntk", None, (2, 6))], {"lr_rule": "inverse_width"}, None, 3),
    "inverse_width_full": ([("he", None, (2, 6))], {"lr_rule": "inverse_width"}, (16, 64, 32, 128, 256), 3),
    "common_loss": (_TWO, {"milestones": (), "epochs": 10, "stop_loss": 0.5}, None, 3),
    "constant_rate": ([("he", None, (2,)), ("power", 2.0, (2,))], {"milestones": ()}, (16, 64, 256), 3),
    "gain": ([("gain", None, None)], {"gain": 1.25}, (64,), 3),
    "gain_full": ([("gain", None, None)], {"gain": 1.25}, (64,), 3),
    "theorem1": ([("he", None, None)], _LONG | {"lr": 0.1, "stop_loss": 0.2}, None, 3),
    "theorem2": ([("power", 2.0, (2,))], _SCALAR | {"dataset": "digits", "lr": 0.1}, (64, 256, 1024, 4096), 5),
    "theorem3_n8": (_SMALL, _SCALAR | {"n_train": 8, "lr": 0.05}, (64, 256, 1024, 4096, 16384), 3),
    "theorem3_n16": (_SMALL, _SCALAR | {"n_train": 16, "lr": 0.05}, (64, 256, 1024, 4096, 16384), 3),
    "theorem3_n32": (_SMALL, _SCALAR | {"n_train": 32, "lr": 0.05}, (64, 256, 1024, 4096, 16384, 32768), 3),
}

# What each notebook draws, by its number; 06 judges all of it.
NOTEBOOKS = {
    "00": (),
    "01": ("N2", "N3", "W7", "constant_rate", "N4a", "N5b", "ntk"),
    "02": ("N4a", "flow10", "theorem1", "N4b", "ntk_full", "inverse_width", "inverse_width_full", "common_loss"),
    "03": ("N5a", "N5b", "unit", "ntk_full", "gain_full"),
    "04": ("W7", "N3", "theorem2", "theorem3_n8", "theorem3_n16", "theorem3_n32"),
    "05": ("W6", "WT4"),
    "06": ("all",),
}


def seeds_of(profile: str, width: int) -> tuple[int, ...]:
    """Seeds of a profile at a width: fewer where a training is dear."""
    return tuple(range(2 if profile == "smoke" else 5 if width <= 256 else 3))


def widths_of(profile: str, init: str) -> tuple[int, ...]:
    """Widths of a profile; on a laptop the two-layer non-lazy networks go on to 1024."""
    return (*WIDTHS[profile], 1024) if init == "power" and profile in ("laptop", "shipped") else WIDTHS[profile]


def grid(figure: str, profile: str, *, seeds=None, widths=None, depths=None, **fields) -> list[Cell]:
    """The trainings behind one figure (a key of FIGURES) in one profile; keywords replace the profile's choices.

    Empty where a figure has none of the depths. Raises InputError on an unknown figure, profile or field, and on a
    list that is empty or repeats itself.
    """
    check_choice("figure", figure, FIGURES)
    check_choice("profile", profile, PROFILES)
    for name in ("width", "depth", "seed"):
        if name in fields:
            raise InputError(f"{name} is {fields[name]!r}, but a grid takes {name}s, a list")
    seeds, widths, depths = _list("seeds", seeds), _list("widths", widths), _list("depths", depths)
    if figure in ("W6", "WT4"):
        return (_figure_6 if figure == "W6" else _table_4)(profile, seeds, widths, depths, fields)
    cells = []
    for init, power, own_depths in FIGURES[figure]:
        for depth in depths or DEPTHS[profile]:
            if own_depths is None or depth in own_depths:
                for width in widths or widths_of(profile, init):
                    curve = (
                        {"init": init, "power": power, "depth": depth, "width": width} | SETTINGS[profile] | fields
                    )
                    cells += [Cell(seed=seed, **curve) for seed in seeds or seeds_of(profile, width)]
    return cells


def _figure_6(profile: str, seeds, widths, depths, fields: dict) -> list[Cell]:
    """CNN under both heads, the fully connected nets beside it; the pooled CNN at the faster rate, with its own."""
    shorter = {"smoke": {"epochs": 20, "lr": 0.1}, "paper": {}}.get(profile, PROXY)  # the same flow time
    base = SETTINGS[profile] | shorter | fields
    kept = [depth for depth in FIGURES["W6"][0][2] if depth in (depths or DEPTHS[profile])]
    own = CNN_WIDTHS[profile]
    models = [({"model": "cnn", "head": head}, own) for head in HEADS] + [({}, WIDTHS[profile])]
    if profile != "smoke":
        faster, shared = {"lr": base["lr"] * FASTER}, [m for m in own if m in WIDTHS[profile]]
        models += [({"model": "cnn", "head": "pooling"} | faster, own), (faster, shared)]
    return [
        Cell(width=width, depth=depth, seed=seed, **base | model)
        for model, its_widths in models
        for depth in kept
        for width in widths or its_widths
        for seed in seeds or range(2 if profile == "smoke" else 3)
    ]


def _table_4(profile: str, seeds, widths, depths, fields: dict) -> list[Cell]:
    """He and non-lazy ResNets, of 16 channels in the first stage unless told otherwise; a depth of its own."""
    return [
        Cell(**RECIPE | {"width": 16} | own | {"init": init, "power": power, "seed": seed} | fields)
        for own in RESNETS[profile]
        if (depths is None or own["depth"] in depths) and (widths is None or 16 in widths)
        for init, power, _ in FIGURES["WT4"]
        for seed in seeds or range(2 if profile == "smoke" else 3)
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


def reading_cells(reading: str, profile: str, *, seeds=None, widths=None, depths=None, **fields) -> list[Cell]:
    """The trainings of one other reading (a key of READINGS): Figures 4 and 5 again, fewer seeds or widths."""
    check_choice("reading", reading, READINGS)
    check_choice("profile", profile, PROFILES)
    seeds, widths, depths = _list("seeds", seeds), _list("widths", widths), _list("depths", depths)
    own, own_depths, own_widths = READINGS[reading]
    kept = [depth for depth in depths or DEPTHS[profile] if own_depths is None or depth in own_depths]
    if profile == "smoke":
        choices = {"widths": widths or (16, 64, 256), "seeds": seeds} | own | fields
    else:
        choices = {"widths": widths or own_widths or WIDTHS[profile], "seeds": seeds or range(3)}
        choices |= own | PROXY | fields
    found = [grid(figure, profile, depths=kept, **choices) for figure in ("N4a", "N4b", "N5b")] if kept else []
    return list(dict.fromkeys(cell for cells in found for cell in cells))


def control_cells(control: str, profile: str, *, seeds=None, widths=None, depths=None, **fields) -> list[Cell]:
    """The trainings of one control (a key of CONTROLS); keywords replace its choices.

    theorem2 and theorem3 train one output on the parity of the class; theorem3 in full batches of n_train points.
    """
    check_choice("control", control, CONTROLS)
    check_choice("profile", profile, PROFILES)
    curves, own, own_widths, count = CONTROLS[control]
    small = profile == "smoke"
    base = SETTINGS[profile] | ({} if small or control.endswith("_full") else PROXY)
    own = own | ({"batch_size": own["n_train"], "points": 100} if "n_train" in own else {})
    if small and "target" not in own:
        own = {name: value for name, value in own.items() if name != "epochs"}
    choices = base | own | fields
    widths = (
        _list("widths", widths) or (own_widths or ((16, 64) if small else WIDTHS[profile]))[: 2 if small else None]
    )
    seeds = _list("seeds", seeds) or range(2 if small else count)
    cells = {}
    for init, power, own_depths in curves:
        for depth in _list("depths", depths) or DEPTHS[profile]:
            if own_depths is None or depth in own_depths:
                curve = {"init": init, "power": power, "depth": depth} | choices
                cells |= {Cell(width=width, seed=seed, **curve): None for width in widths for seed in seeds}
    return list(cells)


def twin(cell: Cell) -> Cell:
    """The same training at ten times the steps and a tenth of the rate: the paper's schedule for one of the proxy."""
    return replace(cell, epochs=10 * cell.epochs, lr=cell.lr / 10)


def twin_cells(profile: str, **choices) -> list[Cell]:
    """The trainings by which the proxy schedule is checked (see TWINS), and no figure of the paper shows."""
    if profile not in ("laptop", "shipped"):
        return []
    own = [(cell, *TWINS[name]) for name in TWINS for cell in named_cells(name, profile, **choices)]
    own = [
        cell for cell, width, depths in own if (cell.width, cell.lr) == (width, PROXY["lr"]) and cell.depth in depths
    ]
    found = dict.fromkeys(map(twin, own))
    names = (*FIGURES, *(name for name in CONTROLS if name.endswith("_full")))
    there = {cell for name in names for cell in named_cells(name, profile, **choices)}
    return [cell for cell in found if cell not in there]


def profile_cells(profile: str, **choices) -> list[Cell]:
    """Every training of a profile with the readings and controls it takes, each once, cheapest first."""
    cells = {cell: None for figure in FIGURES for cell in grid(figure, profile, **choices)}
    readings = {"smoke": ["unit"], "paper": []}.get(profile, READINGS)
    cells |= {cell: None for reading in readings for cell in reading_cells(reading, profile, **choices)}
    controls = () if profile == "paper" else CONTROLS
    cells |= {cell: None for control in controls for cell in control_cells(control, profile, **choices)}
    cells |= dict.fromkeys(twin_cells(profile, **choices))
    return sorted(cells, key=lambda cell: (cell.flops, cell.seed))


def named_cells(name: str, profile: str, **choices) -> list[Cell]:
    """Trainings of a figure, a reading, a control, "twins", or "all" of a profile. Raises InputError on any other."""
    check_choice("figure", name, (*FIGURES, *READINGS, *CONTROLS, "twins", "all"))
    if name in ("twins", "all"):
        return (twin_cells if name == "twins" else profile_cells)(profile, **choices)
    return (reading_cells if name in READINGS else control_cells if name in CONTROLS else grid)(
        name, profile, **choices
    )
