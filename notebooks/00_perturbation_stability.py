# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 0. Perturbation stability, written out
#
# Everything that this companion measures is one number a network, the *perturbation stability*. This notebook
# writes the network, the number and the training loop in about thirty plain lines, and asserts that `robustkit`
# computes the same. Then it draws Figure 1, fills Tables 1 and 2 with numbers, and measures a model of your
# own.
#
# > Definition 1 (perturbation stability). The perturbation stability of a neural network
# > $f(x; W) : \mathbb{R}^d \mapsto \mathbb{R}^o$ parameterized by the neural network parameter $W$ under the
# > data distribution $\mathcal{D}_X$ and a perturbation radius $\epsilon$ is defined as follows:
# >
# > $$\mathcal{P}(f, \epsilon) = \mathbb{E}_{x, \hat{x}, W} \left\| \nabla_x f(x; W)^\top (x - \hat{x}) \right\|_2, \quad \forall x \sim \mathcal{D}_X, \quad \hat{x} \sim \text{Unif}(\mathbb{B}(\epsilon, x)). \quad (1)$$
#
# (NeurIPS version, Eq. 1; in the workshop version the expectation does not run over $W$.) Larger means *less*
# robust, on average over directions.

# %% tags=["parameters"]
profile = "shipped"  # where figures and tables go: figures/<profile>/
width = 64  # m, the width of the network written out below
depth = 3  # L, its number of weight matrices
seed = 0  # names the network and the order of its data

# %%
import math

import pandas
import torch

import robustkit as rk
from robustkit import figures, plots, theory
from robustkit.data import fixed_points, stream_generator
from robustkit.measures import measure

# %% [markdown]
# ## The network
#
# > $$h_{i,0} = x_i; \quad h_{i,l} = \phi(W_l h_{i,l-1}); \quad f(x_i; W) = f_i = \frac{1}{\alpha} W_L h_{i,L-1}; \quad \forall l \in [L-1], i \in [n] \quad (2)$$
#
# $\phi$ is the ReLU, there is no bias, and $[W_l]_{ij} \sim \mathcal{N}(0, \beta_l^2)$. $L$ counts weight
# matrices: $L = 2$ has one hidden layer.
#
# **Figure 1**, redrawn:

# %%
figure, (ax,) = figures.panels(1, width=6)
plots.schematic(ax)
figures.save(figure, "N1", profile, None)

# %% [markdown]
# | symbol | meaning | in `robustkit` |
# |---|---|---|
# | $L$ | number of weight matrices | `depth` |
# | $m$ | width of every hidden layer | `width` |
# | $d$, $o$ | input and output dimension | `d_in`, `d_out` |
# | $\beta_l$ | standard deviation of the entries of $W_l$ at initialisation | `rk.layer_stds` |
# | $\gamma = \beta / \sqrt{2/m}$ | gain of the hidden layers: $1$ for He and NTK, $1/\sqrt 2$ for LeCun | |
# | $\alpha$ | divides the output | `alpha` |
# | $P/\epsilon$ | perturbation stability over its radius | `rk.perturbation_stability` |
# | $\kappa$ | lazy training ratio | `rk.lazy_ratio` |
#
# In plain torch, with the weights of a He initialisation ($\beta_l = \sqrt{2 / \text{fan-in}}$):

# %%
data = rk.load_dataset("digits", dtype=torch.float64)
x_train, x_test = data.x_train.flatten(1), data.x_test.flatten(1)


def network(weights, x):
    for weight in weights[:-1]:
        x = torch.relu(x @ weight.T)
    return x @ weights[-1].T


sizes = [x_train.shape[1], *[width] * (depth - 1), 10]
draws = [
    torch.randn(b, a, generator=stream_generator(seed, "weights", i))
    for i, (a, b) in enumerate(zip(sizes, sizes[1:]))
]
weights = [math.sqrt(2 / a) * w.double() for a, w in zip(sizes, draws)]

# %%
generators = [stream_generator(seed, "weights", layer) for layer in range(depth)]
theirs = rk.FCN(width=width, depth=depth, d_in=sizes[0], d_out=10, generator=generators).double()
torch.testing.assert_close(network(weights, x_test), theirs(x_test), rtol=1e-6, atol=1e-6)

# %% [markdown]
# ## The number
#
# $P$ is linear in $\epsilon$, since the definition already differentiates: $P(f, \epsilon)/\epsilon$ is the
# only number, the mean of $\|J u\|$ over directions $u$ uniform in the unit ball, with $J = \nabla_x f^\top$.

# %%
points = fixed_points(len(x_test), 256, "test points")


def plain_stability(weights, x, draws, generator):
    d = x.shape[1]
    jacobian = torch.vmap(torch.func.jacrev(lambda z: network(weights, z)))(x)  # (n, o, d)
    directions = torch.nn.functional.normalize(torch.randn(len(x), d, draws, generator=generator), dim=1)
    radii = torch.rand(len(x), 1, draws, generator=generator) ** (1 / d)  # uniform in the ball, not on the sphere
    return (jacobian @ (radii * directions).double()).norm(dim=1).mean(1)  # (n,)


sampled = plain_stability(weights, x_test[points], 400, torch.Generator().manual_seed(1))
exact = rk.perturbation_stability(theirs, x_test[points])
print(f"plain, 400 directions a point: {sampled.mean():.5f}     robustkit, exact: {exact.mean:.5f}")

# %% [markdown]
# The exact value needs no sampling: $\mathbb{E}\|J u\|$ depends on the eigenvalues of $J J^\top$ alone and is
# an integral over one variable. Point by point, the sampled values scatter around the exact ones as they
# should:

# %%
values = rk.expected_norm(torch.vmap(torch.func.jacrev(lambda z: network(weights, z)))(x_test[points]))
# E ||Ju|| is at least sqrt(2/pi) of its root mean square, so its standard deviation is below its mean.
standard_error = values / math.sqrt(400 * len(points))
assert abs(sampled.mean() - values.mean()) < 4 * standard_error.mean(), "plain and exact disagree"
assert abs(values.mean().item() - exact.mean) < 1e-6

# %% [markdown]
# Three estimators, one number. `jvp` takes one random direction a point; `finite_difference` really perturbs
# the input, and is exact only within a linear region of $f$:

# %%
pandas.DataFrame(
    [
        rk.perturbation_stability(
            theirs, x_test[points], method=method, draws=4, generator=stream_generator(0, method), radius=0.01
        )
        for method in ("exact", "jvp", "finite_difference")
    ],
    index=["exact", "jvp", "finite_difference"],
)

# %% [markdown]
# ## The training loop
#
# > Unless mentioned otherwise, all models are trained for 50 epochs with a batch size of 64. The initial value
# > of the learning rate is 0.001. After the first 25 epochs, the learning rate is multiplied by a factor of 0.1
# > every 10 epochs. The SGD is used to optimize all the models, while the cross-entropy loss is used.
#
# Here on digits for two epochs, in float64, with the rate drops at half, seven tenths and nine tenths of
# training:

# %%
cell = rk.Cell(width=width, depth=depth, seed=seed, epochs=2, lr=0.05, precision="float64", points=256)
order, step = stream_generator(seed, "order"), 0
for _ in range(2):
    for batch in torch.randperm(len(x_train), generator=order).split(64):
        for weight in weights:
            weight.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(network(weights, x_train[batch]), data.y_train[batch])
        gradients = torch.autograd.grad(loss, weights)
        rate = 0.05 * 0.1 ** sum(step >= round(part * 46) for part in (0.5, 0.7, 0.9))  # 46 steps in all
        weights = [(w - rate * g).detach() for w, g in zip(weights, gradients)]
        step += 1

# %% [markdown]
# `robustkit` trains the same cell and measures it. Same loss, same stability:

# %%
row = measure(cell)["measures"]
loss = torch.nn.functional.cross_entropy(network(weights, x_train), data.y_train)
values = rk.expected_norm(torch.vmap(torch.func.jacrev(lambda z: network(weights, z)))(x_test[points]))
plain = {"train_loss": loss.item(), "stability": values.mean().item()}
for name, value in plain.items():
    assert math.isclose(value, row[name], rel_tol=1e-6), f"{name}: plain {value}, robustkit {row[name]}"
pandas.DataFrame({"plain": plain, "robustkit": {name: row[name] for name in plain}})

# %% [markdown]
# ## Table 1, with numbers
#
# The bounds are orders: "$\lesssim$" hides a constant, and the two versions of the paper keep different ones.
# Here each is evaluated as printed, for MNIST ($d = 784$, $o = 10$), beside the exact expectation of
# $P/\epsilon$ at initialisation, which has a closed form (`rk.theory.stability_at_init`).

# %%
shapes = [dict(width=m, depth=L, d_in=784, d_out=10) for m in (16, 256, 4096) for L in (2, 6, 10)]
table1 = pandas.DataFrame(
    [
        {"init": init, "m": s["width"], "L": s["depth"]}
        | {f"Table 1, {version}": theory.table1(init, version=version, **s) for version in ("neurips", "workshop")}
        | dict(zip(("B.2, first term", "B.2, second term"), theory.theorem1_terms(init, version="proof", **s)))
        | {"exact at initialisation": theory.stability_at_init(init, **s)}
        for init in ("lecun", "he", "ntk")
        for s in shapes
    ]
)
figures.save_table(table1, "N_Table1", profile).round(4)

# %% [markdown]
# ## Table 2, with numbers
#
# > Table 2: Comparison of the orders of the proposed bound with other two recent works. [...] (The original
# > result of [Wu et al., 2021] can be reduced to $\sqrt{mL}$ as the $\frac{m}{(\log m)^6} \geq L^{12}$
# > condition is required).
#
# NTK initialisation. Only shapes in $m$ and $L$ can be compared: each column hides its own constant.

# %%
table2 = pandas.DataFrame(
    [{"m": s["width"], "L": s["depth"]} | theory.table2(width=s["width"], depth=s["depth"], d_out=10) for s in shapes]
)
figures.save_table(table2, "N_Table2", profile).round(2)

# %% [markdown]
# ## Measure your own model
#
# Any module or callable from a batch to logits will do. The points are a float tensor of shape `(n, ...)`.

# %%
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
estimate = rk.perturbation_stability(model, data.x_test[:100].float())
print(f"P/eps = {estimate.mean:.4f} +- {estimate.sem:.4f} (standard error over {estimate.n} points)")

# %% [markdown]
# ## What we saw
#
# - $P(f, \epsilon)/\epsilon$ does not depend on $\epsilon$: it is an average of $\|Ju\|$, and can be had
#   exactly.
# - The network, the metric and the loop are thirty lines, and `robustkit` gives the same numbers as they do.
# - At initialisation the second term of Theorem 1 is close to the exact value (last two columns of Table 1);
#   the first term is the one that rises and falls with width. What training does to $P$ is the subject of the
#   next notebooks.
