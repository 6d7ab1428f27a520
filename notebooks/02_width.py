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
# **The question**: does $P/\epsilon$, of which larger means less robust, rise and then fall with the width $m$? **The
# answer** is two, one line each, below the parameters: one in the setting of the paper's Figure 4(a), one under the
# hypotheses of its Theorem 1. **The picture**: [both beside each other](../figures/shipped/N4a_settings.png). Then: why
# they differ, Theorem 1's bound over the curve that it is about, Figure 4(b) on lazy and non-lazy training, and Table 2.
#
# **What would contradict the paper:** a curve without an interior peak on a grid that reaches past the predicted one,
# or a non-lazy $P/\epsilon$ that is not below the lazy one.

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
depths = None  # type: list|None  # such as [2, 4]; None takes the profile's

# %%
import pandas
from IPython.display import Markdown

import robustkit as rk
from robustkit import plots
from robustkit.files import INFINITE_WIDTH
from robustkit.ledger import answer, sentences, verdicts
from robustkit.ledger.rows import after_epochs
from robustkit.plots import interactive

choices = dict(device=device, seeds=seeds, widths=widths, depths=depths)
where = plots.folder(profile, seeds=seeds, widths=widths, depths=depths)

# %%
rows = rk.collect("N4a", profile, **choices)
meeting = plots.together(rk.collect("theorem1", profile, **choices), rk.collect("theorem1_wide", profile, **choices))
he = plots.only(meeting, "he")
Markdown(f"""
- In the setting of Figure 4(a) (pixels in [0, 1], cross entropy, 50 epochs): {answer.shape(rows)}.
- Under Theorem 1's hypotheses (unit norm, squared loss, one training loss): {answer.shape(he)}.
""")

# %% [markdown]
# ## Figure 4(a): five depths, He initialisation
#
# > Fig. 4(a) exhibits the relationship between the perturbation stability and the width of neural networks with
# > different depths for $L = 2, 4, 6, 8$, and $10$. All of the five curves confirm the phase transition with
# > width: the perturbation stability firstly increases and then decreases with width, which match our
# > theoretical results. (NeurIPS, Sec. 5.3)

# %%
figure, (left, right) = plots.panels(2, width=3.8, height=3.4)
plots.against(rows, left, y="stability")  # this line draws Figure 4(a)
plots.mark_transitions(rows, left)
plots.against(rows, right, y="train_loss")
plots.save(figure, "N4a", where, rows)

# %% [markdown]
# ## The same networks under Theorem 1's hypotheses
#
# The theorem assumes $\|x\|_2 = 1$, the squared loss and lazy training; the figure uses neither of the first two. So the
# networks are trained again as the theorem wants them: points of unit norm, squared loss, a constant learning rate, and
# every network stopped at the same training loss, 0.2, which is looked at every 20 steps. No width is then trained
# further than another.

# %%
limits = pandas.read_csv(INFINITE_WIDTH, comment="#")
limits = limits[(limits["dataset"] == "mnist") & (limits["init"] == "he") & (limits["n_train"] == 4000)]
figure, (left, right) = plots.panels(2, width=3.8, height=3.4)
plots.against(rows, left).set_title("the figure's setting", y=1.16)
plots.against(he, right).set_title("Theorem 1's hypotheses", y=1.16)
for ax, drawn in ((left, rows), (right, he)):
    plots.mark_transitions(drawn, ax)
plots.limit_marks(right, limits)
plots.save(figure, "N4a_settings", where, plots.together(rows, he))

# %% [markdown]
# At two layers the printed peak is at $m = L^3/2 = 4$, below the grid, so there the theorem predicts a fall alone, and a
# fall is what there is. At four layers and more $P/\epsilon$ rises and then falls, which is the paper's phase transition;
# the ledger (rows E06 and E11) tests each peak against the spread over seeds.
#
# The dashes at the right edge are the constant that the paper's sentence ends with. Under lazy training a network of
# infinite width is a kernel machine, so its $P/\epsilon$ at this loss can be computed (`robustkit.infinite_width`; on 4000
# training points, with which it still grows by a few per cent). All curves come down to it from above, and in the limit
# depth does not hurt: He networks end a little *lower* the deeper they are.
#
# ## Why the two differ
#
# On a fixed schedule a wider network is trained further: its loss at the end is lower, and $P/\epsilon$ grows as the
# loss falls. The falling part of the curve is then covered by what training adds. Each line here is one network, from its
# start (ring) to its end (dot), with training to the right. If all widths followed one line, the loss would explain
# $P/\epsilon$ completely, and width would add nothing.

# %%
two = rk.collect("N4b", profile, device=device, seeds=seeds, widths=widths)
figure, (left, middle, right) = plots.panels(3, width=2.9, height=3.2)
lazy, deepest = two[two["init"] == "he"], rows[rows["depth"] == rows["depth"].max()]
plots.along_training(lazy, left).set_title("He, two layers", y=1.22)
plots.along_training(deepest, middle).set_title("He, deepest", y=1.22)
plots.along_training(two[two["init"] == "power"], right).set_title("non-lazy, two layers", y=1.22)
plots.save(figure, "N4_along_training", where, plots.together(rows, two[two["init"] == "power"]))

# %% [markdown]
# The same runs after 2.5, 5 and all 50 epochs; wider networks, trained for five epochs alone, are drawn as far as they
# go. **What would contradict this explanation:** curves whose shape does not change with time.

# %%
early = plots.together(rows, plots.only(rk.collect("early", profile, **choices), "he"))
figure, axes = plots.panels(3, width=2.9)
for ax, epochs in zip(axes[:2], (2.5, 5)):
    plots.against(after_epochs(early, epochs), ax).set_title(f"after {epochs:g} epochs", y=1.16)
plots.against(rows, axes[2]).set_title("at the end", y=1.16)
plots.save(figure, "N4a_early", where, early)

# %% [markdown]
# ### Controls
#
# Three controls take training out in other ways. They complement the paper's figures and do not overturn them, since the
# paper's statement is about its own schedule. First, a learning rate proportional to $1/m$.
#
# The tangent kernel tells how fast a network starts to learn at a given learning rate. For one output, at
# initialisation and on average, it is $\|x\|^2 (1 + (L-1)\, m/d)$ under He, because the first layer's part does not
# grow with width. So it is proportional to $m$ only where $(L-1)\, m \gg d = 784$. For narrower networks, $128/m$
# times the usual learning rate over-corrects: their training loss now rises with width over most of the grid, where
# at one learning rate for all widths it fell. Read $P/\epsilon$ together with the loss: the two rules bracket the
# one at which networks of all widths learn equally fast.
#
# Under NTK the kernel is $\|x\|^2 (1 + (L-1)\, m/(2o))$, which is proportional to $m$ much earlier. Where the
# figure has NTK curves, they are the cleaner test. Small non-lazy weights grow only slowly, and at this learning
# rate the wide networks may not learn at all.

# %%
slower = rk.collect("inverse_width", profile, **choices)
figure, (left, middle, right) = plots.panels(3, width=3.2)
plots.against(plots.named(slower), left, by="curve")
plots.against(plots.named(slower), middle, y="train_loss", by="curve", log=False)
plots.against(plots.named(slower), right, y="test_accuracy", by="curve", log=False)
plots.save(figure, "N4_inverse_width", where, slower)

# %% [markdown]
# A $P/\epsilon$ that falls with width while the loss *rises* may be due to training alone. A trend that both
# learning-rate rules show can be expected at the matched rule between them as well.
#
# On MNIST these runs use the short schedule, which changes $P$ of deep networks (notebook 6). At this learning rate
# it changes the narrow ones most, since theirs is the largest. So the He curves are run again under the paper's
# schedule. **What would support the peak:** that it remains.

# %%
whole = rk.collect("inverse_width_full", profile, **choices)
figure, (left, right) = plots.panels(2)
plots.mark_transitions(whole, plots.against(whole, left))
plots.against(whole, right, y="train_loss")
plots.save(figure, "N4_inverse_width_full", where, whole)

# %% [markdown]
# ### Training to a common loss
#
# Every network stops at the first of 50 evaluation points at which its training loss is 0.5 or lower. Where the
# loss stays above that line, the network ran out of time first, and its point is not a fair comparison.

# %%
stopped = rk.collect("common_loss", profile, **choices)
figure, (left, right) = plots.panels(2)
plots.against(plots.named(stopped), left, by="curve")
plots.against(plots.named(stopped), right, y="train_loss", by="curve", log=False)
right.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
plots.save(figure, "N4_common_loss", where, stopped)

# %% [markdown]
# ## The bound over the measured curve
#
# > **Theorem 1.** [...] Then, under a small perturbation $\epsilon$, we have the following:
# > $$\frac{\mathcal{P}(f, \epsilon)}{\epsilon} \lesssim \left( \sqrt{L^3 m^2 \beta_1^2 \beta_L^2} e^{-m/L^3} + \sqrt{m o \beta_1^2 \beta_L^2} \right) \gamma^{L-2}. \quad (3)$$
#
# The workshop version prints $\sqrt{\pi/8}$ in front of the first term, and $1$ as the second; the end of its proof
# (B.2) has $\sqrt{mo/2}\,\beta_1 \beta_L$ instead of that $1$. All three forms are drawn with their constants as
# printed. "$\lesssim$" leaves a constant open, so only shapes can be compared: the bound rises until $m = L^3/2$
# and falls beyond it.
#
# The networks are those that meet its hypotheses.

# %%
figure, axes = plots.panels(len(he["depth"].unique()) or 1, width=2.3, height=2.6, sharey=True)
for ax, (depth, curve) in zip(axes, he.groupby("depth")):
    plots.bounds(he, ax, init="he", depth=depth)
    plots.against(curve, ax).set(title=f"$L$ = {depth}")
plots.one_legend(figure, axes)
for ax, (_, curve) in zip(axes, he.groupby("depth")):
    plots.shade_outside(ax, curve, 1, note=ax is axes[0])
plots.save(figure, "N4a_bounds", where, he)

# %% [markdown]
# **Move the sliders.** The printed bound and its parts at any depth and initialisation, with MNIST's dimensions.
# (Sliders need a running notebook; a static page shows $L = 6$.) The vertical line is $m = L^3/2$.

# %%
interactive.sliders(
    interactive.theorem1_in_width,
    {"init": "he", "depth": 6},
    init=["lecun", "he", "ntk"],
    depth=[2, 3, 4, 5, 6, 8, 10, 15, 20],
)

# %% [markdown]
# ### Which of the two terms carries the curve?
#
# The second term bounds the network at initialisation (Lemma 5 of the workshop version). The first is meant to
# cover what training adds (Lemma 4), and it alone rises and falls with width. They are drawn separately here, as
# printed in the NeurIPS version.
#
# **What would contradict the theorem:** no single curve can, since "$\lesssim$" leaves a constant open. But if the
# constant that the theorem needs keeps growing with width or depth, no constant will do. And if training raises
# $P/\epsilon$ at widths where the first term has long vanished, then that term does not describe training.

# %%
figure, axes = plots.panels(len(he["depth"].unique()) or 1, width=2.3, height=2.6, sharey=True)
for ax, depth in zip(axes, sorted(he["depth"].unique()) or [2]):
    plots.terms(he, ax, depth=depth).set(title=f"$L$ = {depth}")
plots.one_legend(figure, axes)
for ax, (_, curve) in zip(axes, he.groupby("depth")):
    plots.shade_outside(ax, curve, 1, note=ax is axes[0])
plots.save(figure, "N4a_terms", where, he)

# %% [markdown]
# Does one constant $C$ suffice, $P/\epsilon \le C \cdot$ bound, as width and depth grow? Row T07 of the ledger asks
# this of every curve, under the theorem's hypotheses first.

# %%
(bound,) = verdicts.ledger(plots.together(he, rows), only=["T07"]).itertuples()
Markdown(f"**{bound.verdict}** ({bound.parts}); readings {bound.readings}. {bound.finding}.")

# %% [markdown]
# ### Where is the peak?
#
# The paper names no location, but its Table 1 implies one. Under each of the three initialisations the first term
# is a constant times $\sqrt m\, e^{-m/L^3}$, which is largest at $m = L^3/2$. A rival explanation needs no bound:
# the peak would be where the network has as many parameters as there are training points. **What would contradict
# the printed form:** measured peaks whose location does not grow like $L^3$. A maximum at either end of the grid is
# not a peak: "over the narrowest" or "over the widest" is then 1.

# %%
plots.save_table(plots.peak_places(he), "N4a_peaks", where)

# %% [markdown]
# At $L = 2$ the printed peak is at $m = 4$, so on the paper's grid, which starts at 16, its bound predicts no rise.
#
# The ledger in notebook 6 asks for more: both ratios must exceed 1 by more than the spread over seeds, on a grid
# that reaches well past $L^3/2$.

# %% [markdown]
# ## Figure 4(b): lazy against non-lazy, two layers
#
# > The perturbation stability of non-lazy training is significantly smaller than that of lazy training, which
# > means non-lazy training regime is more robust. Besides, the perturbation stability of non-lazy training
# > decreases with the width of the neural network increases, which coincides with our theoretical result, i.e.,
# > no phase transition phenomenon. (NeurIPS, Sec. 5.3)
#
# The training loss is drawn beside it: a network that has learned nothing is perfectly stable.

# %%
figure, (left, middle, right) = plots.panels(3, width=2.9)
plots.against(two, left, y="stability", by="init")
plots.against(two, middle, y="train_loss", by="init", log=False)
plots.against(two, right, y="test_accuracy", by="init", log=False)
plots.save(figure, "N4b", where, two)

# %% [markdown]
# ### At matched loss
#
# These are the runs of Figure 4(b) again. At each width the common loss is where the less trained of the two curves
# ends. $P/\epsilon$ of both is read off at that loss, interpolated between its seven evaluation points. **What
# would contradict the paper:** a gap on the left that closes on the right.

# %%
figure, (left, right) = plots.panels(2)
plots.against(two, left, by="init").set_title("at the end of training", y=1.06)
plots.against(plots.matched(two), right, by="init").set_title("at matched training loss", y=1.06)
plots.save(figure, "N4b_matched", where, two)

# %%
Markdown(sentences.sentence("E07", two))

# %% [markdown]
# ## Table 2: the orders of earlier work
#
# > Our results indicate a behavior transition on the width. For the over-parameterized regime, the robustness
# > of the neural network only depends on the perturbation energy, and it is almost independent of the width
# > $m$. The results on the width are significantly better than the previous results increasing as the square
# > root of $m$.
# > (NeurIPS, Sec. 4.1)
#
# The figure compares the three orders of Table 2 with networks trained from the NTK initialisation. Each order is
# scaled to pass through the narrowest network, so that only its shape in $m$ remains. **What would contradict the
# paper:** a measured curve that follows the square root of $m$. An upper bound above the curve contradicts nothing.
# The entries of Wu et al. and Huang et al. are the paper's own translation into $P/\epsilon$.

# %%
ntk = plots.only(rk.collect("ntk_full", profile, **choices), "ntk")
figure, axes = plots.panels(len(ntk["depth"].unique()) or 1, width=2.3, height=2.6, sharey=True)
for ax, depth in zip(axes, sorted(ntk["depth"].unique()) or [2]):
    plots.table2_shapes(ntk, ax, depth=depth).set(title=f"$L$ = {depth}")
plots.one_legend(figure, axes)
for ax, (_, curve) in zip(axes, ntk.groupby("depth")):
    plots.shade_outside(ax, curve, 1, note=ax is axes[0])
plots.save(figure, "N_Table2_shapes", where, ntk)

# %% [markdown]
# Row T15 of the ledger fits a power of $m$ to each measured curve, with a 95 % interval from the spread over seeds,
# and compares it with the square root of earlier work. One power is only a summary here, since neither the paper's
# order nor the measured curve need be a power law.

# %% [markdown]
# ## Wider networks, on a shorter schedule
#
# On MNIST the `laptop` profile trains its wider deep networks on the short schedule (a tenth of the steps at ten times
# the learning rate). With pixels in $[0, 1]$ this lowers $P/\epsilon$ of deep networks: at ten layers by a quarter at
# $m = 16$ and by a third at 512, so there it cannot speak of the shape over width. Notebook 6 compares the schedules.

# %%
wider = rk.collect("flow10", profile, **choices)
figure, (left, middle, right) = plots.panels(3, width=3.5, height=3.2)
for ax, init in ((left, "he"), (right, "lecun")):
    plots.against(plots.only(wider, init), ax).set_xlabel(f"width $m$, {plots.NAMES[init]}")
plots.mark_transitions(plots.only(wider, "he"), left)
plots.against(plots.only(wider, "he"), middle, y="train_loss").set_xlabel("width $m$, He")
plots.save(figure, "N4_wider", where, wider)

# %% [markdown]
# ## Three more comparisons
#
# - Left: $P/\epsilon$ after training against before. Dots on the diagonal have not changed.
# - Middle: $P/\epsilon$ at training points against test points. The paper's $\mathcal{D}_X$ is the data
#   distribution, and points that the network has fitted could be special.
# - Right: $P/\epsilon$ divided by the size of the output, the mean norm of the centred logits. A network with
#   logits twice as large has twice the $P/\epsilon$ and makes the same decisions, and logits grow as the loss
#   falls. **If the peak were a matter of output size alone,** this panel would be flat.

# %%
figure, (left, middle, right) = plots.panels(3, width=2.9)
plots.scatter(rows, left, x="stability_init").set_ylabel(r"$P/\epsilon$ after training")
plots.scatter(rows, middle, x="stability_train").set_ylabel(r"$P/\epsilon$ at test points")
relative = rows.assign(relative=rows["stability"] / rows["logit_norm"])
plots.against(relative, right, y="relative").set_ylabel(r"$P/\epsilon$ over norm of logits")
plots.save(figure, "N4a_comparisons", where, rows)

# %% [markdown]
# ## Appendix: Lemma 4, how far the Jacobian moves
#
# > **Lemma 4.** [...] under a small perturbation $\epsilon$, we have:
# > $$\mathbb{E}_{x, \hat{x}, W} \left\| \nabla_x f(x)^\top (x - \hat{x}) - W_L D_{L-1} \cdots D_1 W_1 (x - \hat{x}) \right\|_2 \leq \Theta \left( \epsilon \gamma^{L-2} \sqrt{\frac{\pi L^3 m^2 \beta_1^2 \beta_L^2}{8}} e^{-m/L^3} \right). \quad (9)$$
# > (workshop, Appendix B.1)
#
# The left side compares the Jacobian after training with the one before, so the lemma says that training changes
# the Jacobian by an amount that decays exponentially in $m/L^3$. **What would contradict it:** a distance
# $\mathbb{E}\|J_T - J_0\|_2$ that falls like a power of $m$, or not at all, where $m$ is several times $L^3$. This
# distance is the left side of (10) in the proof; (9) averages over $x - \hat{x}$ instead. By the limits of notebook
# 0, the left side of (9) is at least $\sqrt{2/\pi}\, c_d \|J_T - J_0\|_F$ times $\epsilon$, so it cannot decay
# exponentially if this distance does not.
#
# One step of the proof does not hold as printed (workshop appendix; the NeurIPS supplement may differ). The
# expectation is the integral of a tail bound over $\delta$ from 0. That bound holds only where $\omega^2 \ge 0$,
# which means above $\delta = \sqrt{m/u}$ with $u = 2/(m \beta_1^2 \beta_L^2 \gamma^{2(L-2)})$. Below that point
# only the trivial bound 1 on a probability is available, and the integral up to there is $\sqrt{m/u}$. Under He
# this omitted piece is $\sqrt{2m/d}$, which grows like $\sqrt m$ and does not decay.
#
# The same proof has three smaller problems. $\omega$ is a fixed radius for the trained weights, yet it is tuned
# with $\delta$. The chosen $s = m/(L^3 \log m) + \omega^2/\log m$ exceeds its own upper limit, of order
# $m/(L^3 \log m)$, once $\omega$ grows. And the constants inside $\Omega(\cdot)$ are dropped from the exponent.

# %%
table = plots.lemma4(widths=(16, 64, 256, 1024, 4096), depths=(2, 6, 10), d_in=784, d_out=10)
plots.save_table(table, "W_Lemma4", where).map("{:.4g}".format)

# %% [markdown]
# The ratio is $2 e^{m/L^3} / \sqrt{\pi L^3}$ under every initialisation. For a narrow and deep network it is below
# one, and the printed term covers the omitted piece. From a few times $L^3$ on the omitted piece dominates. For
# wide networks the proof therefore gives a bound of order $\sqrt m$, as in Wu et al.
#
# The lemma may still hold for another reason, and only a measured distance can tell. So the networks of the
# `lemma4` control (unit norm, squared loss, to a common loss) are trained again, and the distance between their
# Jacobians is recorded.

# %%
moved = rk.collect("jacobian_change", profile, device=device, seeds=seeds, widths=widths)
figure, (left, right) = plots.panels(2)
plots.against(moved, left, y="jacobian_change").set_ylabel(r"$\mathbb{E}\|J_T - J_0\|_2$")
plots.against(moved, right, y="jacobian_init").set_ylabel(r"$\mathbb{E}\|J_0\|_2$")
plots.save(figure, "W_Lemma4_measured", where, moved)

# %% [markdown]
# For the measured depths and widths, the table lists the printed term, the omitted piece, the measured distance,
# and a lower bound on the left side of (9) over $\epsilon$. "Printed" keeps its constants, so only the dependence
# on $m$ can be compared.

# %%
plots.save_table(plots.lemma4_measured(moved), "W_Lemma4_beside", where)

# %% [markdown]
# The distance is of the order of the Jacobian itself. These networks have learned, so their outputs, and with them
# their Jacobians, have changed by $O(1)$ although each weight moved little. Row T06 of the ledger fits
# $\sqrt m\, e^{-a m/L^3}$ to the distance and tests $a$ against the lemma's 1.
#
# The last two columns mark the range in which the proof applies. The workshop's appendix prints
# $s \in [\Omega(d/\log m), O(m/(L^3 \log m))]$, an interval that is empty unless $m$ is at least of order $d L^3$.
# In the paper's notation $d$ is the input size. In Allen-Zhu et al., where the range comes from, it is the output
# size, our $o$, and the ledger uses that. With $d = 784$ the range would begin at $m = 6272$ for $L = 2$.

# %% [markdown]
# ## Your turn
#
# Change the network and run the cell: it trains on scikit-learn's digits within seconds and appears as a star among
# networks that differ from it only in width, depth and seed. Can you find a width beyond which $P/\epsilon$ falls
# while the training loss does not?

# %%
width, depth, init, power = 32, 3, "he", None  # he, lecun or ntk; or power, with a number c: beta = m^-c
scaling, dataset = "raw", "digits"  # raw, unit or standard; digits, or mnist where its files are there already
among = {"width": [16, 64, 128], "depth": [2, 4], "seed": [0, 1]}
yours = interactive.your_turn(dataset, width=width, depth=depth, init=init, power=power, scaling=scaling, among=among)
figure, (left, right) = plots.panels(2)
interactive.show_yours(yours, left)
interactive.show_yours(yours, right, y="train_loss")

# %% [markdown]
# ## What we saw
#
# At two layers: $P/\epsilon$, training loss and test accuracy of lazy and non-lazy networks at each width.

# %%
two.groupby(["init", "width"])[["stability", "train_loss", "test_accuracy"]].mean().unstack("init").round(4)

# %% [markdown]
# Finally, the power of $m$ in $P/\epsilon$ over all widths, in the paper's runs and in the two controls. One power
# is a poor summary of a curve with a peak. Where its sign differs between the settings, the effects of training and
# of width cannot be told apart.

# %%
paper = plots.together(rows, two[two["init"] == "power"])
runs = {"as in the paper": paper, "rate 1/m": slower, "common loss": stopped}
tables = [plots.powers(frame, "stability").assign(run=run) for run, frame in runs.items()]
plots.save_table(pandas.concat(tables, ignore_index=True).set_index("run").reset_index(), "N4_powers", where)
