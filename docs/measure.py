"""Write the tables and the picture of measure.md: `python docs/measure.py`, a few minutes on one core."""

from __future__ import annotations

import math
import multiprocessing
import re
import time
from pathlib import Path

import pandas
import torch
import torchvision

import robustkit as rk
from robustkit import plots, theory
from robustkit.sweep import store
from robustkit.sweep.train_missing import to_frame
from robustkit.training.loop import Loop

HERE = Path(__file__).resolve().parent
SHAPES = [("MNIST", 784, 10, 256, 3), ("MNIST", 784, 10, 1024, 10), ("CIFAR-10", 3072, 10, 1024, 5)]
METHODS = {"exact": {}, "jvp": {}, "finite_difference": {"radius": 0.1}}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def at_initialisation() -> pandas.DataFrame:
    """The exact mean over random weights, which depends on the data through their dimension alone."""
    rows = []
    for data, d_in, d_out, width, depth in SHAPES:
        for init in ("he", "lecun", "ntk"):
            value = theory.stability_at_init(init, width=width, depth=depth, d_in=d_in, d_out=d_out)
            network = f"fully connected, width {width}, {depth} layers, {plots.NAMES.get(init, init)}"
            rows.append({"network": network, "points": f"any of {data}'s shape", "P/eps": value})
    return pandas.DataFrame(rows)


def trained() -> pandas.DataFrame:
    """Means over seeds of the shipped rows: He, raw pixels, the paper's 50 epochs."""
    rows = to_frame(store.load_rows(local=False))
    chosen = {
        "model": "fcn",
        "dataset": "mnist",
        "scaling": "raw",
        "init": "he",
        "width": 512,
        "loss": "cross_entropy",
    }
    chosen |= {"epochs": 50, "lr": 0.001, "lr_rule": "fixed", "status": "ok"}
    for name, value in chosen.items():
        rows = rows[rows[name] == value]
    found = []
    for depth, part in rows[rows["depth"].isin((2, 6, 10))].groupby("depth"):
        accuracy, relative = part["test_accuracy"].mean(), (part["stability"] / part["logit_norm"]).mean()
        network = f"fully connected, width 512, {depth} layers, He, trained to {accuracy:.1%} of the test images"
        value = {"P/eps": part["stability"].mean(), "relative": relative}
        found.append({"network": network, "points": "MNIST, pixels in [0, 1]"} | value)
    return pandas.DataFrame(found)


def resnet18(classes: int = 10, seed: int = 0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torchvision.models.resnet18(num_classes=classes).eval()


def random_resnet18(points: int = 4) -> pandas.DataFrame:
    x, model = torch.rand(points, 3, 224, 224, generator=seeded(1)), resnet18()
    plain, relative = (rk.perturbation_stability(model, x, relative=r).mean for r in (False, True))
    row = {
        "network": "torchvision's ResNet-18, 10 classes, random weights",
        "points": "3 x 224 x 224, noise in [0, 1]",
    }
    return pandas.DataFrame([row | {"P/eps": plain, "relative": relative}])


def peak() -> float:
    """GiB of memory that this process has held at most; its parent's are not counted, unlike in `resource`."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20


def cost(method: str, classes: int, points: int = 32) -> tuple[float, float]:
    """CPU seconds per point, and GiB at the peak beyond torch, model and points."""
    torch.set_num_threads(1)
    model, x = resnet18(classes), torch.rand(points, 3, 224, 224, generator=seeded(1))
    few = x[:2, :, :8, :8].clone()
    rk.perturbation_stability(lambda z: z.flatten(1)[:, :2] ** 2, few, method=method)  # what torch loads at first use
    before, start = peak(), time.process_time()
    rk.perturbation_stability(model, x, method=method, **METHODS[method])
    seconds = time.process_time() - start
    return seconds / points, peak() - before


def costs() -> pandas.DataFrame:
    rows = []
    for classes, methods in ((10, METHODS), (1000, list(METHODS)[1:])):
        for method in methods:
            with multiprocessing.get_context("spawn").Pool(1) as pool:  # for a peak of its own
                seconds, memory = pool.apply(cost, (method, classes))
            rows.append({"method": method, "classes": classes, "CPU seconds per point": seconds, "GiB": memory})
    return pandas.DataFrame(rows)


def digits_classifiers(depths=(2, 4, 8)) -> dict:
    """Networks of width 64 trained for 20 epochs on the digits, by depth."""
    data, models = rk.load_dataset("digits"), {}
    for depth in depths:
        nets = Loop([rk.Cell(width=64, depth=depth, epochs=20, lr=0.04)], "cpu", torch.float32)
        nets.train(data.x_train, data.y_train, evaluate_at=(), observe=lambda step: [True])
        models[f"{depth} layers"] = nets.model
    return models


def comparison() -> pandas.DataFrame:
    data = rk.load_dataset("digits")
    return rk.compare(digits_classifiers(), data.x_test, data.y_test)


def table(frame: pandas.DataFrame, digits: int = 3) -> str:
    """Markdown, with so many significant digits."""

    def text(value) -> str:
        if not isinstance(value, float):
            return str(value)
        return "" if math.isnan(value) else f"{value:.{digits}g}"

    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(text, line)) + " |" for line in lines)


def put(page: str, name: str, content: str) -> str:
    """The page with what stands between its two markers of this name replaced."""
    return re.sub(
        f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: m[1] + content + "\n" + m[2], page, flags=re.DOTALL
    )


def main() -> None:
    torch.set_num_threads(1)
    path = HERE / "measure.md"
    frame = comparison()
    figure, (ax,) = plots.panels(1, width=4.2, height=1.7)
    plots.comparison(frame, ax)
    figure.savefig(HERE / "measure.png", metadata={"Software": None})
    page = put(path.read_text(), "comparison", table(frame))
    page = put(page, "references", table(pandas.concat([at_initialisation(), trained(), random_resnet18()])))
    path.write_text(put(page, "costs", table(costs(), digits=2)))


if __name__ == "__main__":
    main()
