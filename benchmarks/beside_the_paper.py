"""Three cells trained from the paper's text alone (from_the_paper.py), compared with the shipped rows of the same.

    python benchmarks/beside_the_paper.py

Reads from_the_paper.csv, which lies beside this file, and results/shipped.jsonl; trains nothing. Writes
figures/benchmarks/from_the_paper.md (.csv, .tex): mean and standard deviation over seeds of each, and the p-value
of Welch's t test. The two share neither code nor seeds nor test points.
"""

from __future__ import annotations

from pathlib import Path

import pandas
from scipy.stats import ttest_ind

import robustkit as rk
from robustkit.plots import output

PLAIN = Path(__file__).with_name("from_the_paper.csv")
FIGURES = {"he": "N4a", "lecun": "N5b", "nonlazy": "N3"}
QUANTITIES = ("stability", "stability_init", "train_loss", "test_accuracy", "kappa")


def table() -> pandas.DataFrame:
    """One row per cell and quantity."""
    lines = []
    for (init, depth, width), plain in pandas.read_csv(PLAIN).groupby(["init", "depth", "width"]):
        shipped = rk.collect(FIGURES[init], "shipped", depths=[depth], widths=[width])
        for name in QUANTITIES:
            line = {"cell": f"{init}, L = {depth}, m = {width}", "quantity": name}
            for who, values in (("from the paper alone", plain[name]), ("shipped", shipped[name])):
                line[who] = f"{values.mean():.4g} +- {values.std():.2g} (n = {len(values)})"
            line["ratio"] = f"{plain[name].mean() / shipped[name].mean():.3f}"
            line["p"] = ttest_ind(plain[name], shipped[name], equal_var=False).pvalue
            lines.append(line)
    return pandas.DataFrame(lines)


if __name__ == "__main__":
    saved = output.save_table(table().round({"p": 3}), "from_the_paper", "benchmarks")
    print(saved.to_string(index=False))
