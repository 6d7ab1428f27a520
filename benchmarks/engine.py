"""Network-steps per second of the engine and of the loops a user would write, measured together.

    python benchmarks/engine.py [--device cuda] [--seconds 0.5] [--rounds 5]

A network-step is one SGD step of one network. Needs MNIST. Writes figures/benchmarks/engine_<device>.md, .tex, .csv,
.png and machine_<device>.md, .tex, .csv. Each round runs every loop for `seconds`. Numbers are medians over rounds;
a ratio is taken within one round.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas
import torch
from torch import nn

import robustkit as rk
from robustkit.data import MNIST_FILES
from robustkit.files import data_folder, figures_folder
from robustkit.networks import build
from robustkit.plots import panels, save_table
from robustkit.sweep import store
from robustkit.training.ensemble import Ensemble, group_size
from robustkit.training.group import row_of
from robustkit.training.measures import MEASURES, ball_norms

SHAPES = [(width, depth) for depth in (2, 6) for width in (16, 64, 256, 1024)]
LOOPS = {
    "loader": "(a) DataLoader, nn.Module, SGD",
    "memory": "(b) the same, tensors in memory",
    "vmap": "(c) torch.func.vmap",
    "ensemble": "(d) robustkit",
}


def cell_of(width: int, depth: int, seed: int = 0) -> rk.Cell:
    return rk.Cell(width=width, depth=depth, seed=seed, dataset="mnist", epochs=1000)


@functools.cache
def dataset(device: str):
    return rk.load_dataset("mnist", device=device)


def now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock:
    """Times a loop that calls `observe` every few steps. The first two calls are warm-up."""

    def __init__(self, device: str, seconds: float, every: int = 10):
        self.device, self.seconds, self.every, self.times = device, seconds, every, []
        self.evaluate_at = range(0, 10**9, every)

    def observe(self, _=None) -> bool:
        self.times.append(now(self.device))
        return len(self.times) < 4 or self.times[-1] - self.times[1] < self.seconds

    def steps_per_second(self) -> float:
        return self.every * (len(self.times) - 2) / (self.times[-1] - self.times[1])


# ------------------------------------------------------------------------------------------------ the four loops


def loader(width: int, depth: int, device: str, clock: Clock) -> float:
    """What a tutorial shows: torchvision's dataset and transform, a DataLoader, a module and its optimizer."""
    model = build(cell_of(width, depth)).to(device)
    optimizer, loss_of = torch.optim.SGD(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    batches = torch.utils.data.DataLoader(torchvision_mnist(), batch_size=64, shuffle=True)
    step = 0
    while True:
        for x, y in batches:
            if step % clock.every == 0 and not clock.observe():
                return clock.steps_per_second()
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()
            step += 1


@functools.cache
def torchvision_mnist():
    import torchvision

    root = Path(data_folder())
    if not all((root / "MNIST" / "raw" / name).exists() for name in MNIST_FILES):  # only gzipped copies are there
        root = Path(tempfile.mkdtemp())
        (root / "MNIST" / "raw").mkdir(parents=True)
        for name in MNIST_FILES:
            packed = data_folder() / "MNIST" / "raw" / f"{name}.gz"
            (root / "MNIST" / "raw" / name).write_bytes(gzip.decompress(packed.read_bytes()))
    return torchvision.datasets.MNIST(root, transform=torchvision.transforms.ToTensor())


def memory(width: int, depth: int, device: str, clock: Clock) -> float:
    """The same without a DataLoader: the whole dataset is a tensor on the device."""
    model, data = build(cell_of(width, depth)).to(device), dataset(device)
    optimizer, loss_of = torch.optim.SGD(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    step = 0
    while True:
        for index in torch.randperm(60_000).to(device).split(64):
            if step % clock.every == 0 and not clock.observe():
                return clock.steps_per_second()
            optimizer.zero_grad()
            loss_of(model(data.x_train[index]), data.y_train[index]).backward()
            optimizer.step()
            step += 1


def vmap(width: int, depth: int, device: str, clock: Clock) -> float:
    """As many networks at once as (d), by vmap(grad)."""
    networks, data = group_size(cell_of(width, depth), device), dataset(device)
    models = [build(cell_of(width, depth, seed)).to(device) for seed in range(networks)]
    weights = [torch.stack([m.weights[layer].detach() for m in models]) for layer in range(depth)]

    def loss(weights, x, y):
        h = x.flatten(1)
        for w in weights[:-1]:
            h = torch.relu(h @ w.T)
        return nn.functional.cross_entropy(h @ weights[-1].T, y)

    gradients = torch.func.vmap(torch.func.grad(loss))
    step = 0
    while True:
        shuffles = torch.stack([torch.randperm(60_000) for _ in range(networks)]).to(device)
        for index in shuffles.split(64, dim=1):
            if step % clock.every == 0 and not clock.observe():
                return networks * clock.steps_per_second()
            for w, g in zip(weights, gradients(weights, data.x_train[index], data.y_train[index]), strict=True):
                w.sub_(g, alpha=1e-3)
            step += 1


def ensemble(width: int, depth: int, device: str, clock: Clock) -> float:
    """The engine, with the group size that it chooses for this shape."""
    networks, data = group_size(cell_of(width, depth), device), dataset(device)
    nets = Ensemble([cell_of(width, depth, seed) for seed in range(networks)], device, torch.float32)
    observe = lambda step: [clock.observe()] * networks  # noqa: E731
    nets.train(data.x_train, data.y_train, evaluate_at=clock.evaluate_at, observe=observe)
    return networks * clock.steps_per_second()


# ------------------------------------------------------------------------------------------------ the machine


def matrix_rate(device: str, size: int = 1024, seconds: float = 0.2) -> float:
    """Operations per second of a large matrix product in full float32 precision."""
    a, b, out = (torch.rand(size, size, device=device) for _ in range(3))
    clock = Clock(device, seconds, every=5)
    while clock.observe():
        for _ in range(clock.every):
            torch.mm(a, b, out=out)
    return 2 * size**3 * clock.steps_per_second()


def bandwidth(device: str) -> float:
    """Bytes per second read and written by a large copy."""
    a, b = (torch.rand(2**28, device=device) for _ in range(2))
    clock = Clock(device, 0.2, every=5)
    while clock.observe():
        for _ in range(clock.every):
            b.copy_(a)
    return 2 * 4 * len(a) * clock.steps_per_second()


def operations(width: int, depth: int) -> float:
    """Operations of one step of one network: 6 per weight and point, without the gradient in the inputs (unused)."""
    cell = cell_of(width, depth)
    return 64 * (6 * cell.parameters - 2 * cell.d_in * width)


def compare(shapes, device: str, seconds: float, rounds: int) -> pandas.DataFrame:
    """One row per shape: network-steps per second of each loop, (d) over the others, and (d) over the GEMM rate."""
    lines = []
    for width, depth in shapes:
        speeds = {name: [] for name in LOOPS} | {"gemm": []}
        for _ in range(rounds):
            speeds["gemm"].append(matrix_rate(device, 1024 if device == "cpu" else 8192))
            for name in LOOPS:
                speeds[name].append(globals()[name](width, depth, device, Clock(device, seconds)))
        line = {"depth": depth, "width": width, "group": group_size(cell_of(width, depth), device)}
        line |= {f"{name} /s": statistics.median(speeds[name]) for name in LOOPS}
        for letter, name in zip("abc", LOOPS, strict=False):
            ratios = [ours / other for ours, other in zip(speeds["ensemble"], speeds[name], strict=True)]
            line[f"d/{letter}"] = statistics.median(ratios)
        parts = [n * operations(width, depth) / g for n, g in zip(speeds["ensemble"], speeds["gemm"], strict=True)]
        line["of GEMM"] = statistics.median(parts)
        line["spread of d"] = max(speeds["ensemble"]) / min(speeds["ensemble"]) - 1
        lines.append(line)
        print("  ".join(f"{k} {v:.3g}" for k, v in line.items()), flush=True)
    return pandas.DataFrame(lines)


# ------------------------------------------------------------------------------------------------ other costs


def _rate_in_worker(width: int, depth: int, seconds: float) -> float:
    torch.set_num_threads(1)
    return ensemble(width, depth, "cpu", Clock("cpu", seconds))


def two_workers(shapes, seconds: float, rounds: int) -> dict[str, float]:
    """Network-steps per second of two processes together, as a multiple of one alone."""
    speedups = {}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_rate_in_worker, [16, 16], [2, 2], [1.0, 1.0]))  # both load torch and the data
        for width, depth in shapes:
            ratios = []
            for _ in range(rounds):
                alone = pool.submit(_rate_in_worker, width, depth, 2 * seconds).result()
                both = [pool.submit(_rate_in_worker, width, depth, 2 * seconds) for _ in range(2)]
                ratios.append(sum(future.result() for future in both) / alone)
            speedups[f"two workers, width {width}, depth {depth}, against one"] = statistics.median(ratios)
    return speedups


def storing() -> float:
    """Seconds to append one row, synced to disk."""
    measures = dict.fromkeys(MEASURES, 0.1) | {n: [0.1] * 51 for n in MEASURES if n.endswith("_over_time")}
    row = row_of(cell_of(16, 2), "ok", None, measures, "cpu", time.time(), engine="ensemble")
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        started = time.perf_counter()
        for _ in range(20):
            store.append(row, Path(folder) / "rows.jsonl")
        return (time.perf_counter() - started) / 20


def exact_stability(device: str) -> dict[str, float]:
    """Time of the exact estimator (1000 points, width 1024, depth 10) as a multiple of that of its products alone."""
    cell, x = cell_of(1024, 10), dataset(device).x_test[:1000]
    model, nets = build(cell).to(device), Ensemble([cell], device, torch.float32)
    ways = {"engine": lambda: ball_norms(nets, x), "any module": lambda: rk.perturbation_stability(model, x)}
    products = 2 * 1000 * 10 * (8 * 1024**2 + 1024 * 784)
    ratios = {name: [] for name in ways}
    for _ in range(3):
        for name, way in ways.items():
            gemm = matrix_rate(device, 1024 if device == "cpu" else 8192)
            started = now(device)
            way()
            ratios[name].append((now(device) - started) * gemm / products)
    words = "exact stability, width 1024, depth 10, over its products"
    return {f"{words}, {name}": statistics.median(values) for name, values in ratios.items()}


def wide_on_gpu(shapes, device: str) -> dict[str, float]:
    """Time of a step compared with the slower of 16 bytes per weight at the bandwidth and its products' time."""
    bytes_per_second, operations_per_second = bandwidth(device), matrix_rate(device, 8192)
    facts = {"bandwidth, TB/s": bytes_per_second / 1e12, "float32 products, TFLOP/s": operations_per_second / 1e12}
    for width, depth in shapes:
        networks = group_size(cell_of(width, depth), device)
        seconds = 1 / ensemble(width, depth, device, Clock(device, 1.0))
        by_bytes = 16 * cell_of(width, depth).parameters / bytes_per_second
        by_operations = operations(width, depth) / operations_per_second
        name = f"width {width}, depth {depth}, group {networks}"
        facts[f"{name}: of the bandwidth"] = by_bytes / seconds
        facts[f"{name}: of the matrix rate"] = by_operations / seconds
        facts[f"{name}: time over the roofline (H200: at most 1.3)"] = seconds / max(by_bytes, by_operations)
    return facts


def picture(table: pandas.DataFrame, device: str, words: str) -> None:
    figure, axes = panels(table["depth"].nunique(), sharey=True)
    for ax, (depth, part) in zip(axes, table.groupby("depth"), strict=True):
        for (name, label), marker in zip(LOOPS.items(), "osD^", strict=True):
            ax.plot(part["width"], part[f"{name} /s"], marker=marker, markersize=4, label=label)
        ax.set(xscale="log", yscale="log", xlabel="width $m$", title=f"depth $L$ = {depth}")
        ax.set_xticks(part["width"], part["width"].astype(str))
        ax.minorticks_off()
    axes[0].set_ylabel("network-steps per second")
    axes[0].legend(fontsize=7)
    figure.supxlabel(words, fontsize=6, color="0.35")
    figure.savefig(figures_folder("benchmarks") / f"engine_{device}.png", metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    on_gpu = chosen.device == "cuda"
    processor = torch.cuda.get_device_name() if on_gpu else _processor()
    words = f"{processor}, PyTorch {torch.__version__}, float32, {chosen.rounds} rounds of {chosen.seconds:g} s"
    print(words + ("" if on_gpu else ", one thread"))
    table = compare(SHAPES, chosen.device, chosen.seconds, chosen.rounds)
    save_table(
        table.map(lambda v: float(f"{v:.3g}") if isinstance(v, float) else v), f"engine_{chosen.device}", "benchmarks"
    )
    picture(table, chosen.device, words)
    facts = exact_stability(chosen.device)
    if on_gpu:
        narrow = table[table["width"] <= 512]
        facts["least d/a to width 512 (H200: at least 300)"] = narrow["d/a"].min()
        facts["least d/b to width 512 (H200: at least 30)"] = narrow["d/b"].min()
        facts |= wide_on_gpu([(4096, 2), (4096, 6), (16384, 2), (16384, 4)], "cuda")
    else:
        facts |= two_workers([(16, 2), (64, 6), (256, 6), (1024, 2)], chosen.seconds, chosen.rounds)
        cheapest = 46_900 / table.set_index(["depth", "width"]).loc[(2, 16), "ensemble /s"]
        facts["storing a row, share of the cheapest training"] = storing() / cheapest
    for name, value in facts.items():
        print(f"{name}: {value:.3g}")
    lines = [{"measured": name, "value": f"{value:.3g}"} for name, value in facts.items()]
    save_table(
        pandas.DataFrame([{"measured": "machine", "value": words}, *lines]), f"machine_{chosen.device}", "benchmarks"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "CPU"


if __name__ == "__main__":
    main()
