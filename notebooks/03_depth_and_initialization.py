# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. The bad and the ugly: depth and initialisation
#
# > The depth has more complex tendency on robustness, which largely depends on the initialization and the
# > training mode. [...] depth helps robustness in an exponential order under the LeCun initialization, whereas
# > it hurts robustness in a polynomial order under He-initialization and under Neural Tangent Kernel (NTK)
# > initialization. (NeurIPS, Sec. 1)
#
# This notebook draws NeurIPS Figure 5 (workshop Figure 3) with width on the axis and with depth on the axis.
# **What would contradict the paper:** a He curve that falls with depth, or a LeCun curve that rises with it.

# %% tags=["parameters"]
profile = "shipped"  # smoke, laptop, paper: train what is missing; shipped: draw the committed rows
device = "auto"  # auto, cpu, cuda
seeds = None  # a list such as [0, 1]; None takes the profile's
widths = None  # a list such as [16, 64]; None takes the profile's
depths = None  # a list such as [2, 4]; None takes the profile's

# %%
import robustkit as rk
from robustkit import figures, plots

choices = dict(device=device, seeds=seeds, widths=widths, depths=depths)

# %% [markdown]
# ## Figure 5(a): He initialisation
#
# > Our results show the tendency of the perturbation stability for FCN with different widths and depths under
# > the He initialization and the LeCun initialization, respectively. We observe a similar phase transition
# > phenomenon, and find that, the perturbation stability under He initialization increases with depth, while
# > the LeCun initialization shows the opposite tendency, which verified our theory. (NeurIPS, Sec. 5.4)

# %%
he = rk.collect("N5a", profile, **choices)
figure, (left, middle, right) = figures.panels(3, width=3.0, height=3.2)
plots.against(he, left, x="width", by="depth")
plots.mark_transitions(he, left)
plots.against(he, middle, x="depth", by="width")
plots.against(he, right, x="depth", y="train_loss", by="width")
figures.save(figure, "N5a", profile, he)

# %% [markdown]
# ## Figure 5(b): LeCun initialisation
#
# LeCun weights are smaller by $\sqrt 2$: without training every layer halves the energy, and $P/\epsilon$
# starts at $2^{-L/2}$ of He's. The paper names the price itself:
#
# > Since the activation function ReLU loses half of the energy in every layer, training a deep network with the
# > LeCun initialization is difficult. (NeurIPS, Sec. 4.1)
#
# So read the right panel, the training loss, together with the middle one: a deep network that has not yet
# learned is stable for that reason alone.

# %%
lecun = rk.collect("N5b", profile, **choices)
figure, (left, middle, right) = figures.panels(3, width=3.0, height=3.2)
plots.against(lecun, left, x="width", by="depth")
plots.mark_transitions(lecun, left)
plots.against(lecun, middle, x="depth", by="width")
plots.against(lecun, right, x="depth", y="train_loss", by="width")
figures.save(figure, "N5b", profile, lecun)

# %% [markdown]
# ## Another reading: points of unit norm
#
# The paper does not say how its pixels were scaled, and its Assumption 1 asks for $\|x\|_2 = 1$. An MNIST image
# of pixels in $[0, 1]$ has a norm of about 9, so that a unit-norm network at the same rate is trained far less.
# On MNIST this reading uses the proxy schedule, a tenth of the steps at ten times the rate, and is never pooled
# with the above.

# %%
unit = rk.collect("unit", profile, **choices)
figure, (left, middle, right) = figures.panels(3, width=3.0, height=3.2)
plots.against(unit[unit["init"] == "he"], left, x="depth", by="width").set_title("He", y=1.06)
plots.against(unit[unit["init"] == "lecun"], middle, x="depth", by="width").set_title("LeCun", y=1.06)
plots.against(unit[unit["init"] == "lecun"], right, x="depth", y="train_loss", by="width")
right.set_title("LeCun", y=1.06)
figures.save(figure, "N5_unit", profile, unit)

# %% [markdown]
# ## Before and after training
#
# At initialisation the exact value is known (thin black, `rk.theory.stability_at_init`): nearly flat in depth
# under He, falling by $\sqrt 2$ a layer under LeCun. The bound of Table 1 is drawn for the middle width; it
# keeps an unknown constant, and its LeCun form is *not* monotone in $L$: at a fixed width it rises before it
# falls.

# %%
figure, (left, right) = figures.panels(2, width=3.8, height=3.2)
plots.against(he, left, x="depth", y="stability_init", by="width")
plots.bounds_in_depth(he, left, init="he").set_xlabel("depth $L$, He")
plots.against(lecun, right, x="depth", y="stability_init", by="width")
plots.bounds_in_depth(lecun, right, init="lecun").set_xlabel("depth $L$, LeCun")
figures.save(figure, "N5_initial", profile, he)

# %% [markdown]
# ## What we saw
#
# $P/\epsilon$ after training, He and LeCun, and the training loss beside it (geometric means over seeds):

# %%
plots.summarise(he, x="depth", y="stability", by="width").pivot(index="width", columns="depth", values="mean").round(
    3
)

# %%
plots.summarise(lecun, x="depth", y="stability", by="width").pivot(
    index="width", columns="depth", values="mean"
).round(3)

# %%
plots.summarise(lecun, x="depth", y="train_loss", by="width").pivot(
    index="width", columns="depth", values="mean"
).round(3)
