# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Lazy and non-lazy training
#
# Before asking about robustness, the paper checks that its initialisations train in the regime that the theory
# covers. It measures how far the weights move:
#
# > To this end, we define a measure for the *lazy training ratio*, i.e.,
# > $\kappa = \frac{\sum_{l=1}^L \|W_l(t) - W_l(0)\|_F}{\sum_{l=1}^L \|W_l(0)\|_F}$. [...] A smaller $\kappa$
# > implies that the neural network is close to lazy training. (NeurIPS, Sec. 5.2)
#
# **The question**: are two-layer He networks lazy, and those with $\beta_1 = \beta_2 = 1/m^2$ not? **The answer**, on the
# shipped rows: yes. Under He, $\kappa$ stays below one and falls with width, though it keeps growing after the first tenth
# of training; the non-lazy $\kappa$ is far larger at every width, and close to linear in time only in the narrowest
# networks. **The picture**: [Figure 3](../figures/shipped/N3.png). Numbers with intervals are below and in notebook 6.
#
# **What would contradict the paper:** a $\kappa$ of order one under He, a He $\kappa$ that grows with width, or a
# non-lazy $\kappa$ as small as the lazy one.

# %%
# robustkit must be this project's own: the package index has another of that name. Where it is missing (Colab, a bare
# Jupyter), it is taken from beside this notebook or cloned, and small packages alone are installed with it, since a
# plain `pip install` could replace the torch, numpy and pandas that are there.
import importlib.util
import pathlib
import subprocess
import sys

address, tag = "", "v0.1.0"  # where this project lies, such as "https://github.com/NAME/robustkit", and its version
if importlib.util.find_spec("robustkit") is None:
    home = pathlib.Path(".." if pathlib.Path("../robustkit").is_dir() or not address else "robustkit-clone")
    if not home.exists():
        subprocess.run(["git", "clone", "-q", "--depth=1", f"--branch={tag}", address, home], check=True)
    if importlib.util.find_spec("jaxtyping") is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "jaxtyping", "seaborn", "tqdm"], check=True)
    sys.path.insert(0, str(home.resolve()))
found = importlib.util.find_spec("robustkit")
if not found or "arXiv:2209.07263" not in pathlib.Path(found.origin or sys.executable).read_text(errors="ignore"):
    raise ImportError("This is not its robustkit: open the notebook in its project's folder, or set `address` above.")

# %% tags=["parameters"]
profile = "shipped"  # type: str  # smoke, laptop, paper: train what is missing; shipped: draw the committed rows
device = "auto"  # type: str  # auto, cpu, cuda
seeds = None  # type: list|None  # such as [0, 1]; None takes the profile's
widths = None  # type: list|None  # such as [16, 64]; None takes the profile's

# %%
import pandas
from IPython.display import Markdown

import robustkit as rk
from robustkit import plots
from robustkit.ledger import verdicts
from robustkit.plots import interactive

where = plots.folder(profile, seeds=seeds, widths=widths)

# %% [markdown]
# ## Figure 2: He initialisation, two layers
#
# > We find that the ratio of lazy traing regime is almost a constant that does not change with time, and this
# > constant decreases as the width of the network increases. (NeurIPS, Sec. 5.2)

# %%
lazy = rk.collect("N2", profile, device=device, seeds=seeds, widths=widths)
figure, (left, right) = plots.panels(2)
plots.over_time(lazy, left)
plots.against(lazy, right, y="kappa")
plots.save(figure, "N2", where, lazy)

# %% [markdown]
# (a) Left: $\kappa$ over epochs, one line per width; thin lines are single seeds, and grey verticals mark the drops
# of the learning rate. (b) Right: $\kappa$ at the end of training, against width. Next, how well these networks are
# trained:

# %%
figure, (left, right) = plots.panels(2)
plots.over_time(lazy, left, y="loss_over_time")
plots.against(lazy, right, y="test_accuracy", log=False)
plots.save(figure, "N2_training", where, lazy)

# %% [markdown]
# ## Figure 3: non-lazy initialisation, $\beta_1 = \beta_2 = 1/m^2$
#
# > Likewise, Fig. 3 shows the ratio tendency with time and width under non-lazy training regime. The ratio
# > increases almost linearly over time in Fig. 3(a). In epoch 25 we decrease the learning rate, which decreases
# > the rate that $\kappa$ increases. At the same time, Fig. 3(b) shows a similar tendency between the width and
# > lazy training ratio as lazy training. However, the value of $\kappa$ is much higher than that of lazy
# > training regime. (NeurIPS, Sec. 5.2)
#
# > The tendency of $\kappa$ for non-lazy training is increasing with the width and then decreasing, i.e., a
# > phase transition in Fig. 3(b). (NeurIPS, caption of Figure 3)
#
# Text and caption describe Figure 3(b) differently. The ledger (notebook 6) judges both.

# %%
nonlazy = rk.collect("N3", profile, device=device, seeds=seeds, widths=widths)
figure, (left, right) = plots.panels(2)
plots.over_time(nonlazy, left)
plots.against(nonlazy, right, y="kappa")
plots.save(figure, "N3", where, nonlazy)

# %%
figure, (left, right) = plots.panels(2)
plots.over_time(nonlazy, left, y="loss_over_time")
plots.against(nonlazy, right, y="test_accuracy", log=False)
plots.save(figure, "N3_training", where, nonlazy)

# %% [markdown]
# ### Why is it not a straight line?
#
# Because both layers start near zero and grow together. $\dot W_1$ is proportional to $W_2$ and $\dot W_2$ to
# $W_1$, so $\kappa$ grows exponentially at first. The rate of this growth is set by the data, not by $m$ or $c$,
# and it lasts until the loss comes down. The smaller the initial weights of $\beta = m^{-c}$, the later that is.
#
# Left, on a logarithmic axis: all curves should start on one line. Middle: each curve divided by its last value, to
# compare it with a straight line. Right: Figure 3(b) under each reading of "$\beta = 1/m^2$" (a *reading* is one
# interpretation of a choice the paper leaves open). The paper calls $\beta$ a standard deviation, which is $c = 2$;
# if $1/m^2$ were a variance, $c$ would be 1. **What would support the paper:** a curve in the middle panel that is
# straight up to epoch 25.

# %%
powers = rk.collect("W7", profile, device=device, seeds=seeds, widths=widths)
present = sorted(powers["width"].unique())
one = powers[powers["width"] == present[len(present) // 2]] if present else powers
ends = [[value / row[-1] for value in row] for row in one["kappa_over_time"]]
figure, (left, middle, right) = plots.panels(3, width=3.0)
plots.over_time(one, left, by="power").set(yscale="log", title=f"$m$ = {one['width'].max()}\n")
plots.over_time(one.assign(kappa_over_time=ends), middle, by="power").set_ylabel(r"$\kappa$ over its last value")
middle.set_title(left.get_title())
plots.against(powers, right, y="kappa", by="power")
plots.save(figure, "N3_readings", where, powers)

# %% [markdown]
# ## Does $\kappa$ go on growing?
#
# > Combining the results about tendency with time, the ratio will be expected to increase as the time until
# > infinity. (NeurIPS, Sec. 5.2, on non-lazy training)
#
# In Figures 2 and 3 the learning rate drops a thousandfold before the end, so $\kappa$ must flatten whatever the
# network would have done. Here the learning rate is constant. (On MNIST these runs use the short schedule: a tenth
# of the steps at ten times the learning rate.) **What would contradict the paper:** a non-lazy $\kappa$ that levels
# off. No finite run can prove growth without bound. Nor would it set the non-lazy networks apart: under cross
# entropy a network that separates its data has no finite optimum, so slow growth without end is expected of the
# lazy networks as well.

# %%
steady = rk.collect("constant_rate", profile, device=device, seeds=seeds, widths=widths)
figure, (left, right) = plots.panels(2)
plots.over_time(steady[steady["init"] == "he"], left).set_ylabel(r"$\kappa$, He, constant learning rate")
plots.over_time(steady[steady["init"] == "power"], right).set_ylabel(r"$\kappa$, non-lazy, constant learning rate")
plots.save(figure, "N23_constant_rate", where, steady)

# %% [markdown]
# Row E16 of the ledger fits laws of growth to the second half of training:

# %%
(law,) = verdicts.ledger(steady, only=["E16"]).itertuples()
Markdown(f"**{law.verdict}**\n\n" + law.evidence.replace("\n", "\n\n"))

# %% [markdown]
# ## Are the common initialisations lazy?
#
# > Commonly used initializations such as NTK initialization, LeCun initialization, He's initialization lead to
# > lazy training. (NeurIPS, Sec. 4.2)
#
# $\kappa$ at the end of training against width, for shallow and deep He and LeCun networks, in the runs of the
# paper's figures. **What would contradict the paper:** a curve that does not fall with width, or that stays near
# one. A deep LeCun network that has not learned has not moved much either; its loss is in notebook 3.

# %%
choices = dict(device=device, seeds=seeds, widths=widths, depths=[2, 6])
he, lecun, ntk = [rk.collect(name, profile, **choices) for name in ("N4a", "N5b", "ntk")]
figure, (left, right) = plots.panels(2, sharey=True)
plots.against(he, left, y="kappa").set_xlabel("width $m$, He")
plots.against(lecun, right, y="kappa").set_xlabel("width $m$, LeCun")
plots.save(figure, "N_lazy", where, plots.together(he, lecun))

# %% [markdown]
# All three schemes side by side. On MNIST these runs use the short schedule. Values can be compared within this
# picture; with the picture above, compare only trends.

# %%
figure, (ax,) = plots.panels(1, width=5.5)
plots.against(plots.named(ntk), ax, y="kappa", by="curve")
plots.save(figure, "N_lazy_schemes", where, ntk)

# %% [markdown]
# The table fits a power of $m$ to each curve, with a 95 % interval from the spread over seeds. "Lazier with width"
# is a negative power; an interval that contains 0 decides nothing.

# %%
plots.save_table(plots.powers(plots.together(he, lecun, ntk), "kappa"), "N_lazy_powers", where)

# %% [markdown]
# ## Your turn
#
# Change the network and run the cell: it trains on scikit-learn's digits within seconds and appears as a star among
# networks that differ from it only in width, depth and seed. Which choice takes it furthest from lazy training,
# $\kappa \ll 1$, and does the network still learn?

# %%
width, depth, init, power = 32, 3, "ntk", None  # ntk, he or lecun; or power, with a number c: beta = m^-c
scaling, dataset = "raw", "digits"  # raw, unit or standard; digits, or mnist where its files are there already
among = {"width": [16, 64, 128], "depth": [2, 4], "seed": [0, 1]}
yours = interactive.your_turn(dataset, width=width, depth=depth, init=init, power=power, scaling=scaling, among=among)
figure, (left, right) = plots.panels(2)
interactive.show_yours(yours, left, y="kappa")
interactive.show_yours(yours, right, y="test_accuracy", log=False)

# %% [markdown]
# ## What we saw
#
# Under He, $\kappa$ falls with width but keeps growing during training; under the non-lazy initialisation it is
# larger at each width. The table gives $\kappa$ at the end, its growth since the first tenth of training ("almost
# unchanged" would be a ratio near 1), and how well the networks are trained:

# %%
both = pandas.concat([lazy, nonlazy])
late = both["kappa_over_time"].str[-1] / both["kappa_over_time"].str[5]
both = both.assign(growth_after_a_tenth=late)
both.groupby(["init", "width"])[["kappa", "growth_after_a_tenth", "train_loss", "test_accuracy"]].mean().round(4)

# %% [markdown]
# A non-lazy network starts from weights so small that its output and its gradients are near zero. Under the paper's
# schedule a wide one may never leave that start: compare its loss with $\log 10 \approx 2.303$, the loss of
# guessing. Notebook 6 judges on the curves themselves whether $\kappa$ is "almost linear in time".
