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
# <a href="https://mybinder.org/v2/gh/OWNER/robustkit/HEAD?labpath=notebooks%2F05_cnn_and_resnet.ipynb"><img src="https://mybinder.org/badge_logo.svg" alt="Open in Binder"></a> <a href="https://colab.research.google.com/github/OWNER/robustkit/blob/main/notebooks/05_cnn_and_resnet.ipynb"><img src="https://colab.research.google.com/assets/colab-badge.svg" alt="Open in Colab"></a>
#
# The workshop version looks beyond fully connected networks twice: Figure 6 (a CNN on MNIST) and Table 4
# (ResNet-110 on CIFAR). It gives neither architecture in full, so what is drawn here are *readings*, and each says
# what was chosen. The last section asks what every reader asks next: does robustness on average, which is what
# $P$ measures, say anything about attacks? **What would contradict the paper:** a gap between the depths of the
# CNN that is no larger than that of the fully connected net; lazy and non-lazy accuracies that differ by more than
# a point.

# %%
# Where robustkit is missing (Colab, a bare Jupyter), this fetches it. Only small packages are installed with it: a
# plain `pip install` of robustkit could replace the torch, numpy and pandas that are there.
import importlib.util
import pathlib
import subprocess
import sys

if importlib.util.find_spec("robustkit") is None:
    home = pathlib.Path(".." if pathlib.Path("../robustkit").is_dir() else "robustkit-clone")
    if not home.exists():
        subprocess.run(["git", "clone", "--depth=1", "https://github.com/OWNER/robustkit", home], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "jaxtyping", "seaborn", "tqdm"], check=True)
    sys.path.insert(0, str(home.resolve()))

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
from robustkit.sweep.train_missing import further

choices = dict(device=device, seeds=seeds, widths=widths, depths=depths)

# %% [markdown]
# ## Figure 6: the CNN beside the fully connected net
#
# > Compared with the fully connected network, the main difference of the convolutional neural network is that the
# > gap between different depths is much larger than fully connected network, which is more in line with the
# > relationship between robustness and depth under He initialization in Theorem 1. (Workshop, E.4)
#
# Our reading: $L - 1$ convolutions ($3 \times 3$, padding 1, no bias, stride 2 at the second and fourth) with
# $m$ channels, ReLU, then a linear head, He initialisation with $\beta = \sqrt{2/\text{fan-in}}$, no
# normalisation; channels stand beside the neurons of a fully connected net of the same $m$. The head is a reading
# of its own: *flatten* keeps every pixel, *pooling* averages over the image. An average over $k$ pixels has $1/k$
# of the gradient in each, so pooled networks are slow, $L = 4$ most, whose $k$ is four times as large: MNIST
# profiles run them at ten times the rate as well, beside fully connected ones at that rate.

# %%
rows = rk.collect("W6", profile, **choices)
seen = plots.views(rows)
slow = "CNN, pooling" if len(seen) > 3 else ""  # where there is a faster rate, the other has a figure of its own
main = {name: part for name, part in seen.items() if name != slow}
figure, axes = plots.panels(len(main), 2, width=2.4, height=2.8)
plots.figure_6(main, axes)  # this line draws Figure 6
plots.save(figure, "W6", profile, plots.together(*main.values()))

# %% [markdown]
# $P/\epsilon$ above, training loss below, on one scale. On a laptop all of them take the proxy schedule, a tenth of the
# steps at ten times the rate, which lowers the $P$ of deep fully connected nets; notebook 6 shows by how much, and what
# it does to the narrowest CNN. Pooling at the paper's rate, on a scale of its own:

# %%
pooled = seen["CNN, pooling"]
figure, (left, right) = plots.panels(2)
plots.against(pooled, left)
plots.against(pooled, right, y="train_loss")
plots.save(figure, "W6_pooling", profile, pooled)

# %% [markdown]
# Where the loss has stayed at $\log 10 \approx 2.3$, nothing has been learned, and $P$ is that of the start: a gap
# between a depth that has left it and one that has not is a gap in training. The same holds of narrow, deep fully
# connected nets.
#
# ### How large is the gap?
#
# Two networks a pair, over the widths and depths that both have. *Rise over depth* is the factor by which $P$
# grows from the shallowest to the deepest along a straight line through $\log P$ (below 1 it falls); *highest /
# lowest* takes whichever depths these are, which noise enlarges. The paper's axes are not in the text, and a CNN's
# $P$ may have another scale, so factors are compared. Last, whether the rise of the CNN is larger in size: *yes* is
# twice as large in $\log P$, *partly* larger, *no* smaller, each with its 95 % interval over seeds.

# %%
plots.save_table(plots.gaps(seen), "W6_gaps", profile)

# %% [markdown]
# ### Is it there before training?

# %%
start = {name: part for name, part in seen.items() if "rate" not in name}  # a start knows no rate
figure, axes = plots.panels(len(start), width=2.6, height=2.8)
drawn = [plots.against(part, ax, y="stability_init") for ax, part in zip(axes, start.values())]
titles = [ax.set_title(f"{name}\n\n") for ax, name in zip(axes, start)]
plots.save(figure, "W6_initial", profile, plots.together(*start.values()))

# %% [markdown]
# Under pooling $L = 4$ should start at about half of the others: with one stride in place of two it averages over
# four times as many pixels, and a mean of $k$ nearly independent gradients shrinks as $1/\sqrt k$. Where the bands
# overlap here and not in Figure 6 above, training made the gap.
#
# ## Table 4: ResNet-110, lazy and non-lazy
#
# > We adopt a narrow model width for computational efficiency. We utilize the He initialization and the non-lazy
# > training initialization as mentioned in Appendix E.1 on two commonly used datasets CIFAR10 and CIFAR100 [...]
# > Notice that the non-lazy training regime achieves a similar performance to lazy training regime. (Workshop, E.3)
#
# Our reading is the recipe that E.3 links to: 16, 32 and 64 channels, 1 730 714 parameters for 10 classes, 164
# epochs at rate 0.1 (times 0.1 after 81 and 122), momentum 0.9, weight decay $10^{-4}$, batch 128, crops and flips.
# "Lazy" is He with fan-out, as the linked code has it (E.1 says fan-in; the two differ at the stem and where a stage
# begins), "non-lazy" $\beta = m^{-2}$ with $m$ the fan-in of each layer. Unlike the recipe, each channel is divided
# by its own standard deviation, which enters the unit of $P$, and a GPU multiplies in TF32. The recipe reports the
# best epoch on the test set; the last one is shown beside it, since the best of 164 looks at a test set is
# flattering. `python -m robustkit run paper --claim E15` trains the twelve networks on a GPU.

# %%
resnets = rk.collect("WT4", profile, device=device, seeds=seeds)
wanted = list(dict.fromkeys([*grid("WT4", "paper"), *grid("WT4", profile)]))
print(plots.scaled_down(grid("WT4", profile)) or "the published recipe in full")
plots.save_table(plots.table_4(resnets, wanted), "W_Table4", profile)

# %%
figure, (left, right) = plots.panels(2, width=3.8)
plots.accuracies(resnets, left)
plots.over_epochs(resnets, right)
plots.save(figure, "W_Table4_accuracy", profile, resnets)

# %% [markdown]
# ### What batch normalisation does to a non-lazy start
#
# In training mode each convolution's output is centred, then divided by $\sqrt{\sigma^2 + 10^{-5}}$, with $\sigma^2$
# its own variance. As long as $\sigma^2$ is much larger than the constant, the network does not see the scale $c$
# of its convolutions: its function is the same, and a step moves them $1/c^2$ times as far relative to their size.
# The initial scale is then a choice of rate. Once the constant is the larger one, the scale is back. Below, all
# convolutions of one He ResNet-8 times $c$, and last the non-lazy scale itself, which is each layer's own: about
# $4 \cdot 10^{-4}$ of He where a layer has 144 inputs, less where it has more, a tenth at this stem with its 9.

# %%
x = rk.load_dataset("digits", scaling="standard").x_train[:128]
net = rk.ResNet(depth=8, d_out=10, in_channels=1, generator=stream_generator(0, "scale")).double()
inner = {n: p for n, p in net.named_parameters() if p.ndim == 4}
scales = {f"{c:g}": dict.fromkeys(inner, c) for c in (1, 0.1, 0.01, 1e-3, 1e-4)}
scales["non-lazy"] = {n: p[0].numel() ** -2 / (2 / p[:, 0].numel()) ** 0.5 for n, p in inner.items()}
weights = [{n: c * inner[n] for n, c in own.items()} for own in scales.values()]
outputs = [torch.func.functional_call(net, w, x.double()) for w in weights]
changes = [((f - outputs[0]).norm() / outputs[0].norm()).item() for f in outputs]
plots.save_table(pandas.DataFrame({"c": list(scales), "change of the logits": changes}), "W_Table4_scale", profile)

# %% [markdown]
# At a tenth of the scale next to nothing has changed; far below, the constant has taken over and little but biases
# is left. The non-lazy start lies between: its stem is still normalised, its residual branches nearly switched off,
# and its linear layer, which nothing normalises and which is left as it is above, starts at almost 0 as well. Where
# such a net trains, its small weights grow many times over, and $\kappa$ is divided by their small start. Neither
# $\kappa$ nor Theorem 2, whose networks have no normalisation, says which regime this is: the ledger reports
# $\kappa$ and judges the accuracies alone.
#
# ## On average and in the worst case
#
# $P$ averages over directions, an attack looks for the worst one. For a few dozen fully connected networks,
# trained again for this: the local Lipschitz constant $\|J\|_2$, the product of the layers' spectral norms, which
# bounds it everywhere, and the accuracy under PGD. The paper makes no such statement, so there is no verdict.

# %%
few = [16, 64] if profile == "smoke" else [16, 32, 64, 128]
small = dict(seeds=seeds or [0, 1, 2], widths=widths or few, depths=depths or [2, 6, 10])
attackable = [cell for name in ("N4a", "N3") for cell in grid(name, profile, **small)]
if profile == "shipped":
    attacked = rk.load_further("attack", local=False)
else:
    attacked = further(attackable, "attack", device=device)

# %%
figure, axes = plots.panels(4, width=2.6)
plots.average_against_worst(attacked, axes[0])
plots.average_against_worst(attacked, axes[1], y="spectral_product")
plots.average_against_worst(attacked, axes[2], y="accuracy_pgd_l2_1")
plots.average_against_worst(attacked, axes[3], y="accuracy_pgd_l2_1", over="margin")
plots.save(figure, "E22_attacks", profile, attacked)

# %% [markdown]
# A network with ten times the logits has ten times the $P$ and falls to the same attacks. So $P$ cannot decide
# alone, and the fourth panel divides it by the mean margin $f_y - \max_{k \neq y} f_k$, which grows with the scale as
# $P$ does; whether that ranks these networks better is for the correlations below to say. Nor does a small $P$ help
# a network that was hardly trained: its clean accuracy is lost before any attack.
#
# And the same on other outputs and points: $P$ of the softmax, and at training points.

# %%
figure, axes = plots.panels(2)
plots.average_against_worst(attacked, axes[0], y="softmax_stability")
plots.average_against_worst(attacked, axes[1], y="logit_stability_train")
plots.save(figure, "E22_outputs", profile, attacked)

# %% [markdown]
# Rank correlations over networks, with their intervals:

# %%
Markdown("\n".join(f"- {part.text}" for part in worst_case.under_attack(attacked)))

# %% [markdown]
# ## Your turn
#
# Change the CNN and run the cell: it is trained on scikit-learn's digits in some ten seconds with its company, and
# drawn as a star among networks that differ from it in width and depth alone. What is left of the gap between the
# depths under the other head, or at another scaling?

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
# The ledger's rows on this notebook, as these trainings decide them:

# %%
pandas.set_option("display.max_colwidth", None)
ledger = verdicts.ledger(plots.together(rows, resnets), only=["E12", "E15"])
ledger[["id", "claim", "verdict", "readings", "finding"]]

# %% [markdown]
# - How much of $P$ the depth of a CNN makes, by head and rate and beside the training loss, is in the table of gaps.
# - Table 4 needs CIFAR and a GPU; what a smaller machine trains is labelled scaled down and decides nothing.
# - Batch normalisation hides the initial scale of a ResNet, but not one as small as the non-lazy one.
# - How far $P$ ranks networks as Lipschitz constants and attacks do, and whether it does so better relative to the
#   margin, stands in the correlations.
