# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. The good: width
#
# > Along with the increase in width, the robustness firstly becomes worse in the under-parameterized regime and
# > then gets better, and finally tends to be a constant in highly over-parameterized regimes, which implies the
# > existence of a phase transition. (NeurIPS, Sec. 1)
#
# This notebook draws NeurIPS Figure 4 (workshop Figure 2): $P/\epsilon$ against width for five depths under He
# initialisation, with the bound of Theorem 1 in each of its printed forms, and lazy against non-lazy training
# at two layers. **What would contradict the paper:** a curve without an interior peak on a grid that reaches
# past the predicted one, or a non-lazy $P/\epsilon$ that is not below the lazy one.

# %% tags=["parameters"]
profile = "shipped"  # smoke, laptop, paper: train what is missing; shipped: draw the committed rows
device = "auto"  # auto, cpu, cuda
seeds = None  # a list such as [0, 1]; None takes the profile's
widths = None  # a list such as [16, 64]; None takes the profile's
depths = None  # a list such as [2, 4]; None takes the profile's

# %%
import robustkit as rk
from robustkit import figures, plots

# %% [markdown]
# ## Figure 4(a): five depths, He initialisation
#
# > Fig. 4(a) exhibits the relationship between the perturbation stability and the width of neural networks with
# > different depths for $L = 2, 4, 6, 8$, and $10$. All of the five curves confirm the phase transition with
# > width: the perturbation stability firstly increases and then decreases with width, which match our
# > theoretical results. (NeurIPS, Sec. 5.3)

# %%
rows = rk.collect("N4a", profile, device=device, seeds=seeds, widths=widths, depths=depths)
figure, (left, right) = figures.panels(2, width=3.8, height=3.4)
plots.against(rows, left, y="stability")  # this line draws Figure 4(a)
plots.mark_transitions(rows, left)
plots.against(rows, right, y="train_loss")
figures.save(figure, "N4a", profile, rows)

# %% [markdown]
# Left, the figure: dots are seeds, bands 95 % intervals of the geometric mean. Right, the training loss: at a
# fixed rate and a fixed number of steps a wider network is trained further, so width and training change
# together.
#
# ## The bound over the measured curve
#
# > **Theorem 1.** [...] Then, under a small perturbation $\epsilon$, we have the following:
# > $$\frac{\mathcal{P}(f, \epsilon)}{\epsilon} \lesssim \left( \sqrt{L^3 m^2 \beta_1^2 \beta_L^2} e^{-m/L^3} + \sqrt{m o \beta_1^2 \beta_L^2} \right) \gamma^{L-2}. \quad (3)$$
#
# The workshop version prints $\sqrt{\pi/8}$ in front of the first term and $1$ as the second; its proof (end of
# B.2) ends with $\sqrt{mo/2}\,\beta_1 \beta_L$ there. All three are drawn with their constants as printed.
# "$\lesssim$" leaves a constant open, so only shapes can be compared: the bound rises until $m = L^3/2$ and
# falls after it.
#
# The theorem assumes $\|x\|_2 = 1$ and the squared loss; these networks were trained on pixels in $[0, 1]$ with
# cross entropy, as in the paper's experiments. They are *outside its hypotheses*, and the comparison is of
# shapes only.

# %%
figure, axes = figures.panels(len(rows["depth"].unique()) or 1, width=2.3, height=2.6, sharey=True)
for ax, (depth, curve) in zip(axes, rows.groupby("depth")):
    plots.bounds(rows, ax, init="he", depth=depth)
    plots.against(curve, ax).set(title=f"$L$ = {depth}")
plots.one_legend(figure, axes)
figures.save(figure, "N4a_bounds", profile, rows)

# %% [markdown]
# ## Figure 4(b): lazy against non-lazy, two layers
#
# > The perturbation stability of non-lazy training is significantly smaller than that of lazy training, which
# > means non-lazy training regime is more robust. Besides, the perturbation stability of non-lazy training
# > decreases with the width of the neural network increases, which coincides with our theoretical result, i.e.,
# > no phase transition phenomenon. (NeurIPS, Sec. 5.3)
#
# The loss stands beside it: a network that has not learned anything is perfectly stable.

# %%
two = rk.collect("N4b", profile, device=device, seeds=seeds, widths=widths)
figure, (left, middle, right) = figures.panels(3, width=2.9)
plots.against(two, left, y="stability", by="init")
plots.against(two, middle, y="train_loss", by="init", log=False)
plots.against(two, right, y="test_accuracy", by="init", log=False)
figures.save(figure, "N4b", profile, two)

# %% [markdown]
# ## What we saw
#
# For each depth of Figure 4(a): the width with the largest $P/\epsilon$ (geometric mean over seeds), and how
# far that value stands above the narrowest and the widest network. A phase transition needs both ratios above 1
# by more than the seeds' spread; the ledger in notebook 6 applies that test.

# %%
plots.peaks(rows)

# %% [markdown]
# And at two layers, $P/\epsilon$, loss and accuracy of lazy and non-lazy networks at each width:

# %%
two.groupby(["init", "width"])[["stability", "train_loss", "test_accuracy"]].mean().unstack("init").round(4)
