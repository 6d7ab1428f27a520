"""What the exact metric costs beside the passes that it is made of, as ratios in one run.

    python benchmarks/metric.py [--rounds 3] [--points 1000] [--images 64] [--threads 1]

Times are of the CPU, medians over rounds, each of which runs both sides of every ratio. Memory is the peak of a
process of its own, above what torch and the inputs take.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time

import torch
import torchvision

import robustkit as rk
from robustkit.stability import check_derivative, check_model, undisturbed


def seconds(function) -> float:
    start = time.process_time()  # of this process alone: other work on the machine does not count
    function()
    return time.process_time() - start


def products(net, x) -> None:
    """The matrix products of the forward pass, and of a backward pass a logit down to the input."""
    z, weights = x, [weight.detach() for weight in net.weights]
    for weight in weights:
        z = z @ weight.T
    rows = weights[-1][:, None].expand(-1, len(x), -1).reshape(-1, weights[-1].shape[1])
    for weight in reversed(weights[:-1]):
        rows = rows @ weight


def backward_passes(model, images, classes: int) -> None:
    x = images.clone().requires_grad_(True)
    logits = model(x)
    for k in range(classes):
        torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)


def checks(model, x) -> None:
    with undisturbed(model, x):
        check_model(model, x)
        check_derivative(model, x)


def resnet18():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).eval()


def peak(images: int, threads: int) -> float:
    """GiB that the exact metric of ResNet-18 takes beyond torch, the network and the images."""
    torch.set_num_threads(threads)
    model, x = resnet18(), torch.rand(images, 3, 224, 224)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rk.perturbation_stability(model, x)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("rounds", 3), ("points", 1000), ("images", 64), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        memory = pool.apply(peak, (options.images, options.threads))
    generator = torch.Generator().manual_seed(0)
    net = rk.FCN(width=1024, depth=10, d_in=784, d_out=10, generator=generator)
    x, model, images = torch.rand(options.points, 784), resnet18(), torch.rand(options.images, 3, 224, 224)
    runs = {
        "exact, fully connected": lambda: rk.perturbation_stability(net, x),
        "matrix products": lambda: products(net, x),
        "checks, fully connected": lambda: checks(net, x),
        "exact, ResNet-18": lambda: rk.perturbation_stability(model, images),
        "backward passes": lambda: backward_passes(model, images, 10),
        "checks, ResNet-18": lambda: checks(model, images),
    }
    times = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    time_of = {name: statistics.median(values) for name, values in times.items()}
    for label, above, below in (
        (f"exact over its matrix products, width 1024, depth 10, {options.points} points", *list(runs)[:2]),
        ("its checks over exact", "checks, fully connected", "exact, fully connected"),
        (f"exact over ten backward passes, ResNet-18, {options.images} images", *list(runs)[3:5]),
        ("its checks over exact", "checks, ResNet-18", "exact, ResNet-18"),
    ):
        print(f"{time_of[above] / time_of[below]:6.3f}  {label}")
    print(f"{memory:6.2f}  GiB at the peak of exact, ResNet-18, above torch, network and images")


if __name__ == "__main__":
    main()
