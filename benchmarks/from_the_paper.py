"""Three experiments of the paper in plain PyTorch, written from its text alone, as an independent reference.

"Robustness in deep learning: The good (width), the bad (depth), and the ugly (initialization)", NeurIPS 2022.
Equations and sections below are those of the paper. It trains five networks for each of three settings on MNIST,
whose idx files (plain or gzip) it reads from $ROBUSTKIT_DATA/MNIST/raw ("data" if unset). How to run it:

    python benchmarks/from_the_paper.py [OUT.csv]
"""

import csv
import gzip
import os
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, relu

CELLS = [("he", 6, 64), ("lecun", 4, 128), ("nonlazy", 2, 256)]  # initialisation, depth L, width m
COLUMNS = ["init", "depth", "width", "seed", "stability", "stability_init", "train_loss", "test_accuracy", "kappa"]
SEEDS = range(101, 106)
DIM, CLASSES = 784, 10  # input and output dimension, d and o of Section 3
ALPHA = 1.0  # scaling factor of Eq. (2): 1 in Table 1 and in Section 5.1
EPOCHS, BATCH, RATE, DROPS = 50, 64, 1e-3, [25, 35, 45]  # Section 5.1: learning rate times 0.1 after these epochs
POINTS, DRAWS = 1000, 256  # Monte Carlo sizes in Eq. (1): number of x, and of x_hat for each x


def read_idx(name):
    path = Path(os.environ.get("ROBUSTKIT_DATA", "data"), "MNIST", "raw", name)
    data = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(name + ".gz").read_bytes())
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=4 + 4 * data[3])  # data[3]: number of axes


def mnist(part):
    x, y = read_idx(f"{part}-images-idx3-ubyte"), read_idx(f"{part}-labels-idx1-ubyte")
    return x.view(-1, DIM).float() / 255, y.long()


def initial_weights(init, depth, width):
    sizes = [DIM] + [width] * (depth - 1) + [CLASSES]  # Section 3.1: W_1 is m x d, W_2 to W_{L-1} m x m, W_L o x m
    beta = {  # standard deviation of layer l as a function of its fan-in; Table 1 and Section 5.1
        "he": lambda m_in: (2 / m_in) ** 0.5,
        "lecun": lambda m_in: (1 / m_in) ** 0.5,
        "nonlazy": lambda m_in: 1 / width**2,
    }[init]
    return [beta(m_in) * torch.randn(m_out, m_in) for m_in, m_out in zip(sizes[:-1], sizes[1:], strict=True)]


def f(x, weights):  # Eq. (2): the logits, one row of x per input, no bias
    for w in weights[:-1]:
        x = relu(x @ w.T)
    return x @ weights[-1].T / ALPHA


def train(weights, x, y):  # Section 5.1; changes the weights in place
    sgd = torch.optim.SGD([w.requires_grad_() for w in weights], lr=RATE)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, DROPS, gamma=0.1)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            sgd.zero_grad()
            cross_entropy(f(x[batch], weights), y[batch]).backward()
            sgd.step()
        schedule.step()


def uniform_in_unit_ball(n):  # direction of a Gaussian, radius distributed as U^(1/d)
    u = torch.randn(n, DIM)
    return u / u.norm(dim=1, keepdim=True) * torch.rand(n, 1) ** (1 / DIM)


def stability(weights, x):
    """P(f, eps) / eps of Definition 1, Eq. (1): linear in x_hat - x, hence the same for all eps, here eps = 1."""
    x = x.clone().requires_grad_()
    out = f(x, weights)
    gradients = [torch.autograd.grad(out[:, k].sum(), x, retain_graph=True)[0] for k in range(CLASSES)]
    jacobian = torch.stack(gradients, dim=1)
    # Every point has its own perturbations: (points, o, d) times (points, d, draws), in chunks to save memory.
    change = [j @ uniform_in_unit_ball(len(j) * DRAWS).view(-1, DRAWS, DIM).mT for j in jacobian.split(50)]
    return torch.cat(change).norm(dim=1).mean().item()


def lazy_ratio(weights, start):  # kappa of Section 5.2: a sum over the layers divided by a sum over the layers
    change = sum((w - w0).norm().item() for w, w0 in zip(weights, start, strict=True))
    return change / sum(w0.norm().item() for w0 in start)


def main(out):
    torch.set_num_threads(1)
    (x, y), (x_test, y_test) = mnist("train"), mnist("t10k")
    torch.manual_seed(0)
    points = x_test[torch.randperm(len(x_test))[:POINTS]]  # the same for all networks
    with open(out, "w", newline="", buffering=1) as file:  # line-buffered, so that finished rows are kept
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for init, depth, width in CELLS:
            for seed in SEEDS:
                torch.manual_seed(seed)
                weights = initial_weights(init, depth, width)
                start = [w.clone() for w in weights]
                train(weights, x, y)
                with torch.no_grad():
                    loss = cross_entropy(f(x, weights), y).item()
                    accuracy = (f(x_test, weights).argmax(dim=1) == y_test).float().mean().item()
                row = stability(weights, points), stability(start, points), loss, accuracy, lazy_ratio(weights, start)
                table.writerow([init, depth, width, seed] + [f"{value:.6g}" for value in row])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "from_the_paper.csv")
