"""What a GPU does with this code, and what each figure must be on an H200: some four minutes, no row is written.

    python benchmarks/gpu.py

Needs MNIST. Each part prints its lines; a part that fails says so and lets the next begin, and the exit status is 1.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
import warnings

import torch
from engine import bandwidth, cell_of, matrix_rate, now, operations

import robustkit as rk
from robustkit.profiles import grid
from robustkit.sweep import store
from robustkit.sweep.device import resolve_device
from robustkit.training.ensemble import Ensemble, group_size, groups
from robustkit.training.group import accuracies, torch_set_for
from robustkit.training.loop import Loop
from robustkit.training.measures import ball_norms, measure_group

GPU, STARTED, failed = "cuda", time.time(), []


def say(what: str, measured: str, must: str) -> None:
    print(f"[{time.time() - STARTED:4.0f} s] {what}: {measured} (must be {must})", flush=True)


@contextlib.contextmanager
def part(name: str):
    try:
        yield
    except Exception:
        failed.append(name)
        print(f"FAILED: {name}", flush=True)
        traceback.print_exc()
    torch.cuda.empty_cache()


def trained(engine, cells, x, y, steps: int) -> tuple[object, float]:
    """Networks trained for a while, and the seconds of one step, past the capture."""
    times = []

    def observe(_) -> list[bool]:
        times.append(now(GPU))
        return [len(times) < 4] * len(cells)

    nets = engine(cells, GPU, torch.float32)
    with torch_set_for(cells[0], GPU):
        nets.train(x, y, evaluate_at=range(0, 10**9, steps), observe=observe)
    return nets, (times[-1] - times[1]) / (2 * steps)


def machine() -> None:
    full = matrix_rate(GPU, 8192) / 1e12
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    say(
        "products, float32 and TF32",
        f"{full:.0f} and {matrix_rate(GPU, 8192) / 1e12:.0f} TFLOP/s",
        "50 and 300 or more",
    )
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    say("copy", f"{bandwidth(GPU) / 1e12:.2f} TB/s", "4 or more")


def eigenvalues() -> None:
    for shape in ((1_000, 10, 10), (20_000, 10, 10), (256, 100, 100)):
        grams = torch.randn(*shape, device=GPU, dtype=torch.float64)
        grams = grams @ grams.mT
        torch.linalg.eigvalsh(grams)
        began = now(GPU)
        here = torch.linalg.eigvalsh(grams)
        between = now(GPU)
        there = torch.linalg.eigvalsh(grams.cpu())
        times = f"{1e3 * (between - began):.1f} ms, on the CPU {1e3 * (now(GPU) - between):.1f} ms"
        apart = (here.cpu() - there).abs().max() / there.max()
        say(f"eigenvalues of {shape}", f"{times}, apart {apart:.0e}", "faster than on the CPU, apart below 1e-13")


def shipped_again() -> None:
    """Runs that are shipped from a CPU, trained again."""
    rows = {row["key"]: row for row in store.load_rows(local=False) if row["status"] == "ok"}
    choices = {"widths": [64, 512], "depths": [2, 6], "seeds": [0, 1, 2]}
    cells = [cell for name in ("N4a", "N5b") for cell in grid(name, "laptop", **choices) if cell.key in rows]
    for group in groups(cells, GPU):
        began = now(GPU)
        again = measure_group(group, GPU)
        far = [
            abs(row["measures"][name] / rows[row["key"]]["measures"][name] - 1)
            for row in again
            for name in ("stability", "train_loss", "kappa")
        ]
        what = f"{len(group)} shipped rows again, width {group[0].width}, depth {group[0].depth}"
        statuses = ", ".join({row["status"] for row in again})
        say(what, f"{statuses}, farthest {max(far):.1e}, {now(GPU) - began:.0f} s", "ok, farthest below 1e-2")


def fully_connected() -> None:
    x, y = torch.rand(60_000, 1, 28, 28, device=GPU), torch.randint(10, (60_000,), device=GPU)
    must = {(16, 2): "45 to 60 us", (1024, 10): "1.4 to 1.8 ms", (16384, 10): "16 to 20 ms"}
    for (width, depth), wanted in must.items():
        cell, peak = cell_of(width, depth), torch.cuda.reset_peak_memory_stats
        networks = group_size(cell, GPU)
        peak()
        nets, seconds = trained(Ensemble, [cell] * networks, x, y, 400 if width <= 1024 else 40)
        rate = networks * operations(width, depth) / seconds / 1e12
        say(
            f"step of {networks} x (width {width}, depth {depth})",
            f"{1e6 * seconds:.0f} us, {rate:.1f} TFLOP/s",
            wanted,
        )
        began = now(GPU)
        ball_norms(nets, x[:1000])
        memory = torch.cuda.max_memory_allocated() / (4 * networks * cell.parameters) if width > 1024 else 0
        say("stability of 1000 points", f"{now(GPU) - began:.2f} s", "below 5 s")
        if memory:
            say(
                "peak memory over that of the weights",
                f"{memory:.2f}",
                "below 2.1: a run keeps its start beside them",
            )
        del nets


def convolutional() -> None:
    x, y = torch.rand(60_000, 1, 28, 28, device=GPU), torch.randint(10, (60_000,), device=GPU)
    for width in (8, 64, 256):
        cell = rk.Cell(model="cnn", head="flatten", width=width, depth=10, dataset="mnist", epochs=1000)
        _, seconds = trained(Loop, [cell], x, y, 100)
        say(f"step of a CNN, width {width}, depth 10", f"{1e3 * seconds:.2f} ms", "below 0.5 ms to width 64")
    cell = next(cell for cell in grid("WT4", "paper") if cell.init == "he")
    x, y = torch.rand(50_000, 3, 32, 32, device=GPU), torch.randint(10, (50_000,), device=GPU)
    for benchmark in (False, True):
        torch.backends.cudnn.benchmark = benchmark
        nets, seconds = trained(Loop, [cell], x, y, 100)
        what = f"step of ResNet-110, cudnn.benchmark {benchmark}"
        say(what, f"{1e3 * seconds:.2f} ms, {cell.steps * seconds / 60:.1f} min a run", "7.4 ms, 8 min at most")
    torch.backends.cudnn.benchmark = False
    began = now(GPU)
    accuracies(nets, x[:10_000], y[:10_000], cell)
    say("accuracy on 10 000 points, after each epoch", f"{now(GPU) - began:.2f} s", "below 1 s")


def main() -> int:
    warnings.simplefilter("always")  # a capture that fails is a warning: there must be none
    print(f"{torch.cuda.get_device_name(resolve_device(GPU))}, PyTorch {torch.__version__}")
    for measure in (machine, eigenvalues, fully_connected, convolutional, shipped_again):
        with part(measure.__name__):
            measure()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
