"""P of trained networks of infinite width, at training sets of growing size, and beside finite ones.

    python benchmarks/infinite_width.py

Writes results/infinite_width.csv, a line at a time, and computes those that are not in it: a quarter of an hour of
one CPU core and 2 GB of memory in all. Needs MNIST. Each line is robustkit.infinite_width.limit_stability at unit
norm and training loss 0.2, on the first n_train training points and the test points of the runs; without a width it
is the limit, with one the network of that width made linear in its weights. It takes n^3 operations, so that all
60 000 training points are out of reach: their value is read off the trend in n_train.

Writes figures/benchmarks/infinite_width.md (.csv, .tex) from the rows at n_train = 1000 that stopped at that loss:
P over its limit at each width, and the power of m with which it tends to it.
"""

from __future__ import annotations

import pandas
import torch
from scipy.optimize import curve_fit
from scipy.stats import t as student

import robustkit as rk
from robustkit.data import fixed_points, stream_generator
from robustkit.files import INFINITE_WIDTH, write_atomically
from robustkit.infinite_width import limit_stability
from robustkit.plots import save_table

LOSS, POINTS = 0.2, 1000
JOB = ["dataset", "init", "depth", "n_train", "width"]
INITS, DEPTHS = ("he", "lecun", "ntk"), (2, 4, 6, 8, 10)
JOBS = [("mnist", init, depth, n, None) for n in (500, 1000, 2000, 4000) for init in INITS for depth in DEPTHS]
WIDTHS = (None, 64, 128, 256, 512, 1024, 2048, 4096)
JOBS += [("digits", init, depth, 1000, width) for init in INITS for depth in (2, 4) for width in WIDTHS]


def line(dataset: str, init: str, depth: int, n_train: int, width: int | None) -> dict:
    """One line of the table."""
    data = rk.load_dataset(dataset, scaling="unit", dtype=torch.float64)
    x, y = data.x_train[:n_train].flatten(1), torch.nn.functional.one_hot(data.y_train[:n_train], 10).double()
    test = data.x_test[fixed_points(len(data.x_test), POINTS, "test points")].flatten(1)
    options = {"init": init, "depth": depth, "width": width, "generator": stream_generator(0, "directions")}
    limit = limit_stability(x, y, test, loss=LOSS, **options)
    job = dict(zip(JOB, (dataset, init, depth, n_train, width), strict=True))
    return job | {"loss": LOSS} | limit._asdict()


def _power(m, c, a):
    return c * m**-a


def approach(limits: pandas.DataFrame) -> pandas.DataFrame:
    """How P of finite networks nears the limit: its ratios to it, and a of P = limit (1 + c m^-a) from m = d_in on.

    Runs are weighed by the variance at their width; the interval of a is Student's, at 95 %.
    """
    rows, table = rk.load(), []
    rows = rows[(rows["stop_loss"] == LOSS) & (rows["stop_every"] == 1) & (rows["n_train"] == 1000)]
    limits = limits[limits["width"].isna()].set_index(JOB[:4])["mean"]
    for place, runs in rows[rows["status"] == "ok"].astype({"width": float, "n_train": int}).groupby(JOB[:4]):
        ratio = runs["stability"] / limits[place]
        means = ", ".join(f"{m:g}: {mean:.3f}" for m, mean in ratio.groupby(runs["width"]).mean().items())
        line = dict(zip(JOB[:4], place, strict=True)) | {"limit": limits[place], "P over it at m": means}
        far = runs["width"] >= rk.Cell(width=1, depth=2, dataset=place[0]).d_in
        widths, ratio = runs["width"][far], ratio[far]
        if widths.nunique() > 1:
            start = ratio[widths == widths.min()].mean() - 1, 1.0
            spread = ratio.groupby(widths).transform("std")
            (_, a), variances = curve_fit(_power, widths / widths.min(), ratio - 1, start, spread)
            half = student.ppf(0.975, len(ratio) - 2) * variances[1, 1] ** 0.5
            line |= {"a": a, "low": a - half, "high": a + half, "n": len(ratio)}
        table.append(line)
    return pandas.DataFrame(table)


def main() -> None:
    """Compute what is missing, shortest first, and save after each line."""
    names = [*JOB, "loss", "mean", "sem", "n", "mean_part", "random_part", "time"]
    table = pandas.DataFrame(columns=names)
    if INFINITE_WIDTH.exists():
        table = pandas.read_csv(INFINITE_WIDTH, comment="#")
    lines = table.astype(object).where(table.notna(), None).to_dict("records")
    done = {tuple(line[name] for name in JOB) for line in lines}
    for job in sorted(set(JOBS) - done, key=lambda job: (job[3], *map(str, job))):
        lines.append(line(*job))
        print(lines[-1], flush=True)
        table = pandas.DataFrame(lines, columns=names).astype({"width": "Int64"}).sort_values(JOB)
        text = "# python benchmarks/infinite_width.py\n" + table.to_csv(index=False, float_format="%.6g")
        write_atomically(INFINITE_WIDTH, text)
    if len(found := approach(table)):
        print(save_table(found, "infinite_width", "benchmarks").to_string(index=False))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
