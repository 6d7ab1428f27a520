# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Beyond the fully connected net: CNN, ResNet, and the worst case
#
# The workshop version looks beyond fully connected networks twice: Figure 6 (a CNN on MNIST) and Table 4
# (ResNet-110 on CIFAR). It gives neither architecture in full, so everything here is a *reading*, one
# interpretation of a choice the paper leaves open, and each section says what was chosen. The last section asks a
# question that the paper does not: does robustness on average, which is what $P$ measures, say anything about
# attacks? **What would contradict the paper:** a gap between depths that is no larger for the CNN than for the
# fully connected net; or lazy and non-lazy accuracies that differ by more than a point.
#
# **In short, on the shipped rows.** The CNN's gap is much larger only with a pooling head at the base learning
# rate, where the shallowest networks have hardly trained; otherwise it is not shown to be larger. Table 4 needs
# CIFAR and a GPU, and is still missing. Over fully connected networks, $P$ ranks widths and depths much as
# Lipschitz constants and attacks do.

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
widths = None  # type: list|None  # such as [16, 32]; None takes the profile's (of the CNN, and of the attacked networks)
depths = None  # type: list|None  # such as [4, 6]; None takes the profile's (of the CNN, and of the attacked networks)

# %%
import pandas
import torch
from IPython.display import Markdown

import robustkit as rk
from robustkit import plots
from robustkit.data import stream_generator
from robustkit.ledger import verdicts, worst_case
from robustkit.plots import interactive
from robustkit.profiles import grid

where = plots.folder(profile, seeds=seeds, widths=widths, depths=depths)

# %% [markdown]
# ## Figure 6: the CNN beside the fully connected net
#
# > Compared with the fully connected network, the main difference of the convolutional neural network is that the
# > gap between different depths is much larger than fully connected network, which is more in line with the
# > relationship between robustness and depth under He initialization in Theorem 1. (Workshop, E.4)
#
# Our reading of the network: $L - 1$ convolutions with $m$ channels ($3 \times 3$, padding 1, no bias, stride 2 at
# the second and fourth), each followed by a ReLU, then a linear head. There is no normalisation, and the
# initialisation is He with $\beta = \sqrt{2/\text{fan-in}}$. A CNN of $m$ channels is compared with a fully
# connected net of $m$ neurons per layer.
#
# The head is a further choice: *flatten* keeps every pixel, *pooling* averages over the image. An average over $k$
# pixels passes $1/k$ of the gradient to each, so pooled networks learn slowly, and those with $L = 4$ most slowly,
# since their $k$ is four times as large. The MNIST profiles therefore also train them at ten times the base
# learning rate (the paper's, or its counterpart on a shorter schedule), beside fully connected nets at that
# learning rate.

# %%
rows = rk.collect("W6", profile, device=device, seeds=seeds, widths=widths, depths=depths)
seen = plots.views(rows)
slow = "CNN, pooling" if len(seen) > 3 else ""  # it has its own figure below
main = {name: part for name, part in seen.items() if name != slow}
figure, axes = plots.panels(len(main), 2, width=2.4, height=2.8)
plots.figure_6(main, axes)  # this line draws Figure 6
plots.save(figure, "W6", where, plots.together(*main.values()))

# %% [markdown]
# $P/\epsilon$ above, training loss below, each row of panels on one scale. In the `laptop` profile all of these
# networks use the short schedule (a tenth of the steps at ten times the learning rate), which lowers $P$ of deep
# fully connected nets; notebook 6 shows by how much, and what it does to the narrowest CNN. Pooling at the base
# learning rate has a figure of its own:

# %%
pooled = seen["CNN, pooling"]
figure, (left, right) = plots.panels(2)
plots.against(pooled, left)
plots.against(pooled, right, y="train_loss")
plots.save(figure, "W6_pooling", where, pooled)

# %% [markdown]
# Where the loss has stayed at $\log 10 \approx 2.3$, nothing has been learned, and $P$ is that of the initial
# network. A gap between a depth that has left its start and one that has not is a gap in training. The same is true
# of narrow, deep fully connected nets.
#
# ### How large is the gap?
#
# The table compares each CNN with the fully connected net, over the widths and depths that both have.
#
# - *Rise over depth* is the factor by which $P$ grows from the shallowest network to the deepest, along a
#   straight line through $\log P$; below 1 it falls.
# - *Highest / lowest* compares the depths with the largest and the smallest $P$, whichever these are. Noise
#   enlarges it.
# - The last column says whether the CNN's rise is larger in size: *yes* means twice as large in $\log P$,
#   *partly* larger, *no* smaller, each by its 95 % interval over seeds.
#
# Factors are compared because the values on the paper's axes are not in its text, and because a CNN's $P$ may be on
# another scale.

# %%
plots.save_table(plots.gaps(seen), "W6_gaps", where)

# %% [markdown]
# ### Is the gap there before training?

# %%
start = {name: part for name, part in seen.items() if "rate" not in name}  # no learning rate at the start
figure, axes = plots.panels(len(start), width=2.6, height=2.8)
drawn = [plots.against(part, ax, y="stability_init") for ax, part in zip(axes, start.values())]
titles = [ax.set_title(f"{name}\n\n") for ax, name in zip(axes, start)]
plots.save(figure, "W6_initial", where, plots.together(*start.values()))

# %% [markdown]
# Under pooling, $L = 4$ should start at about half the value of the others. With one stride instead of two it
# averages over four times as many pixels, and a mean of $k$ nearly independent gradients shrinks as $1/\sqrt k$.
# Where the bands overlap here but not in Figure 6 above, training made the gap.
#
# ## Table 4: ResNet-110, lazy and non-lazy
#
# > We adopt a narrow model width for computational efficiency. We utilize the He initialization and the non-lazy
# > training initialization as mentioned in Appendix E.1 on two commonly used datasets CIFAR10 and CIFAR100 [...]
# > Notice that the non-lazy training regime achieves a similar performance to lazy training regime. (Workshop, E.3)
#
# Our reading is the recipe that E.3 links to: 16, 32 and 64 channels, 1 730 714 parameters for 10 classes, 164
# epochs at learning rate 0.1 (times 0.1 after 81 and 122), momentum 0.9, weight decay $10^{-4}$, batch size 128,
# crops and flips. It departs from the recipe in two ways: each channel is divided by its own standard deviation,
# which changes the unit of $P$, and a GPU multiplies in TF32.
#
# "Lazy" is He with fan-out, as in the linked code. (E.1 says fan-in; the two differ in the first convolution and
# where a stage begins.) "Non-lazy" is $\beta = m^{-2}$ with $m$ the fan-in of each layer. The recipe reports the
# best epoch on the test set. The last epoch is shown beside it, since the best of 164 evaluations on a test set is
# biased upwards. `python -m robustkit run paper --claim E15` trains the twelve networks on a GPU.

# %%
resnets = rk.collect("WT4", profile, device=device, seeds=seeds)
wanted = list(dict.fromkeys([*grid("WT4", "paper"), *grid("WT4", profile)]))
print(plots.scaled_down(grid("WT4", profile)) or "the published recipe in full")
plots.save_table(plots.table_4(resnets, wanted), "W_Table4", where)

# %%
figure, (left, right) = plots.panels(2, width=3.8)
plots.accuracies(resnets, left)
plots.over_epochs(resnets, right)
plots.save(figure, "W_Table4_accuracy", where, resnets)

# %% [markdown]
# ### What batch normalisation does to a non-lazy start
#
# It hides the initial scale, unless the scale is very small. In training mode each convolution's output is centred,
# then divided by $\sqrt{\sigma^2 + 10^{-5}}$, with $\sigma^2$ its own variance. As long as $\sigma^2$ is much
# larger than $10^{-5}$, the network does not see the scale $c$ of its convolutions. Its function is unchanged, and
# one step moves the weights $1/c^2$ times as far relative to their size, so the initial scale acts as a choice of
# learning rate. Once $10^{-5}$ is the larger term, the scale matters again.
#
# The table multiplies all convolutions of one He ResNet-8 by $c$. Its last row is the non-lazy scale itself, which
# differs from layer to layer: about $4 \cdot 10^{-4}$ of He where a layer has 144 inputs, less where it has more,
# and a tenth in the first convolution with its 9.

# %%
x = rk.load_dataset("digits", scaling="standard").x_train[:128]
net = rk.ResNet(depth=8, d_out=10, in_channels=1, generator=stream_generator(0, "scale")).double()
inner = {n: p for n, p in net.named_parameters() if p.ndim == 4}
scales = {f"{c:g}": dict.fromkeys(inner, c) for c in (1, 0.1, 0.01, 1e-3, 1e-4)}
scales["non-lazy"] = {n: p[0].numel() ** -2 / (2 / p[:, 0].numel()) ** 0.5 for n, p in inner.items()}
weights = [{n: c * inner[n] for n, c in own.items()} for own in scales.values()]
outputs = [torch.func.functional_call(net, w, x.double()) for w in weights]
changes = [((f - outputs[0]).norm() / outputs[0].norm()).item() for f in outputs]
plots.save_table(pandas.DataFrame({"c": list(scales), "change of the logits": changes}), "W_Table4_scale", where)

# %% [markdown]
# At a tenth of the scale almost nothing has changed. Far below that, the constant dominates and little but biases
# is left. The non-lazy start lies in between: the first convolution is still normalised, and the residual branches
# are nearly switched off. In the non-lazy runs the linear layer, which nothing normalises and which keeps its own
# scale in this table, also starts near 0.
#
# Where such a network trains, its small weights grow many times over, and $\kappa$ divides by their small start.
# Neither $\kappa$ nor Theorem 2, whose networks have no normalisation, can say which regime this is. The ledger
# therefore reports $\kappa$ and judges only the accuracies.
#
# ## On average and in the worst case
#
# $P$ averages over directions; an attack looks for the worst one. A few dozen fully connected networks were trained
# again to compare the two. For each, the figure shows the local Lipschitz constant $\|J\|_2$, the product of the
# layers' spectral norms, which bounds it everywhere, and the accuracy under PGD. The paper makes no statement on
# this, so there is no verdict.

# %%
attacked = rk.collect("attack", profile, device=device, seeds=seeds, widths=widths, depths=depths)
figure, axes = plots.panels(4, width=2.6)
plots.average_against_worst(attacked, axes[0])
plots.average_against_worst(attacked, axes[1], y="spectral_product")
plots.average_against_worst(attacked, axes[2], y="accuracy_pgd_l2_1")
plots.average_against_worst(attacked, axes[3], y="accuracy_pgd_l2_1", over="margin")
plots.save(figure, "E22_attacks", where, attacked)

# %% [markdown]
# A network with ten times the logits has ten times the $P$ and falls to the same attacks, so $P$ alone cannot
# decide. The fourth panel divides it by the mean margin $f_y - \max_{k \neq y} f_k$, which grows with the scale as
# $P$ does. Whether this ranks the networks better is for the correlations below to say. Nor does a small $P$ help a
# network that was hardly trained: its clean accuracy is lost before any attack.
#
# The same for other outputs and points: $P$ of the softmax, and $P$ at training points.

# %%
figure, axes = plots.panels(2)
plots.average_against_worst(attacked, axes[0], y="softmax_stability")
plots.average_against_worst(attacked, axes[1], y="logit_stability_train")
plots.save(figure, "E22_outputs", where, attacked)

# %% [markdown]
# Rank correlations over networks, with their intervals:

# %%
Markdown("\n".join(f"- {part.text}" for part in worst_case.under_attack(attacked)))

# %% [markdown]
# ## Your turn
#
# Change the CNN and run the cell: it trains on scikit-learn's digits in some ten seconds, together with the
# networks it is compared with, and appears as a star among CNNs that differ from it only in width and depth. What
# is left of the gap between depths under the other head, or with another scaling?

# %%
width, depth, head = 12, 4, "pooling"  # m channels; pooling or flatten
init, power, scaling = "he", None, "raw"  # he or lecun, or power with a number c; raw, unit or standard
own = dict(width=width, depth=depth, head=head, init=init, power=power, scaling=scaling)
yours = interactive.your_turn("digits", model="cnn", among={"width": [8, 16], "depth": [4, 6]}, **own)
figure, (left, right) = plots.panels(2)
interactive.show_yours(yours, left)
interactive.show_yours(yours, right, y="train_loss")

# %% [markdown]
# ## What we saw
#
# The two rows of the ledger that this notebook's runs decide:

# %%
pandas.set_option("display.max_colwidth", None)
ledger = verdicts.ledger(plots.together(rows, resnets), only=["E12", "E15"])
ledger[["id", "claim", "verdict", "readings", "finding"]]

# %% [markdown]
# - The table of gaps shows how much of $P$ depends on the depth of a CNN, for each head and learning rate, beside
#   the training loss.
# - Table 4 needs CIFAR and a GPU. What a smaller machine trains is labelled scaled down and decides nothing.
# - Batch normalisation hides the initial scale of a ResNet, but not one as small as the non-lazy scale.
# - The rank correlations show how far $P$ ranks networks as Lipschitz constants and attacks do, and whether
#   dividing by the margin improves this.
