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
# Every experiment of this companion measures one number per network, its *perturbation stability* $P$. This
# notebook writes the network, the metric and the training loop in about thirty plain lines, and asserts that
# `robustkit` computes the same values. Then it redraws Figure 1, evaluates the bounds of Tables 1 and 2, and
# measures a model of your own.
#
# > Definition 1 (perturbation stability). The perturbation stability of a neural network
# > $f(x; W) : \mathbb{R}^d \mapsto \mathbb{R}^o$ parameterized by the neural network parameter $W$ under the
# > data distribution $\mathcal{D}_X$ and a perturbation radius $\epsilon$ is defined as follows:
# >
# > $$\mathcal{P}(f, \epsilon) = \mathbb{E}_{x, \hat{x}, W} \left\| \nabla_x f(x; W)^\top (x - \hat{x}) \right\|_2, \quad \forall x \sim \mathcal{D}_X, \quad \hat{x} \sim \text{Unif}(\mathbb{B}(\epsilon, x)). \quad (1)$$
#
# (NeurIPS version, Eq. 1. In the workshop version the expectation does not run over $W$.) A larger value means
# *less* robust, on average over directions.
#
# **In short.** $P$ is linear in $\epsilon$, so $P/\epsilon$ says it all. It equals the Frobenius norm of the
# Jacobian up to a factor between two close limits, and its mean over initial weights has a closed form. **What
# would contradict this:** a $P/\epsilon$ that drifts with $\epsilon$ by more than its sampling error, a single
# point outside the two limits, or initial values that disagree with the closed form.
#
# One word that all notebooks use: a *reading* is one interpretation of a choice the paper leaves open, such as how
# pixels are scaled.

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
profile = "shipped"  # type: str  # where figures and tables go: figures/<profile>/
width = 64  # type: int  # m, the width of the network written out below
depth = 3  # type: int  # L, its number of weight matrices
seed = 0  # type: int  # names the network and the order of its data

# %%
import math
import timeit

import pandas
import torch

import robustkit as rk
from robustkit import plots, theory
from robustkit.data import fixed_points, stream_generator
from robustkit.ledger.initial_value import frobenius_sandwich
from robustkit.stability import jacobian
from robustkit.training.measures import measure

torch.set_num_threads(1)  # these networks are small: more threads would only wait for each other

where = plots.folder(profile)

# %% [markdown]
# ## The network
#
# > $$h_{i,0} = x_i; \quad h_{i,l} = \phi(W_l h_{i,l-1}); \quad f(x_i; W) = f_i = \frac{1}{\alpha} W_L h_{i,L-1}; \quad \forall l \in [L-1], i \in [n] \quad (2)$$
#
# $\phi$ is the ReLU, there is no bias, and $[W_l]_{ij} \sim \mathcal{N}(0, \beta_l^2)$. $L$ counts weight matrices:
# $L = 2$ has one hidden layer.
#
# **Figure 1**, redrawn:

# %%
figure, (ax,) = plots.panels(1, width=6)
plots.schematic(ax)
plots.save(figure, "N1", where, None)

# %% [markdown]
# | symbol | meaning | in `robustkit` |
# |---|---|---|
# | $L$ | number of weight matrices | `depth` |
# | $m$ | width of every hidden layer | `width` |
# | $d$, $o$ | input and output dimension | `d_in`, `d_out` |
# | $\beta_l$ | standard deviation of the entries of $W_l$ at initialisation | `rk.layer_stds` |
# | $\gamma = \beta / \sqrt{2/m}$ | gain of the hidden layers: $1$ for He and NTK, $1/\sqrt 2$ for LeCun | `theory.gamma` |
# | $\alpha$ | divides the output | `alpha` |
# | $P/\epsilon$ | perturbation stability over its radius | `rk.perturbation_stability` |
# | $\kappa$ | lazy training ratio | `rk.lazy_ratio` |
#
# The same in plain PyTorch, with the weights of a He initialisation ($\beta_l = \sqrt{2 / \text{fan-in}}$):

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
# ## The metric
#
# The definition already differentiates, so $P$ is linear in $\epsilon$ and only $P(f, \epsilon)/\epsilon$ matters.
# It is the mean of $\|J u\|$ over directions $u$ uniform in the unit ball, with $J = \nabla_x f^\top$.

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
print(f"plain, 400 directions per point: {sampled.mean():.5f}     robustkit, exact: {exact.mean:.5f}")

# %% [markdown]
# The exact value needs no sampling: $\mathbb{E}\|J u\|$ depends only on the eigenvalues of $J J^\top$, through a
# one-dimensional integral. The sampled mean must agree with the exact one up to the error of sampling:

# %%
values = rk.expected_norm(torch.vmap(torch.func.jacrev(lambda z: network(weights, z)))(x_test[points]))
# E ||Ju|| is at least sqrt(2/pi) of its root mean square, so its standard deviation is below its mean.
standard_error = values / math.sqrt(400 * len(points))
assert abs(sampled.mean() - values.mean()) < 4 * standard_error.mean(), "plain and exact disagree"
assert abs(values.mean().item() - exact.mean) < 1e-6

# %% [markdown]
# ## Three estimators of one number
#
# `exact` needs the whole Jacobian: one backward pass per output. `jvp` takes one random direction per point, in
# forward mode. `finite_difference` really perturbs the input, and is exact only within one linear region of $f$.
#
# Each is called twenty times on the same points, with fresh directions. **What would contradict their agreement:**
# values that differ by more than their spread over the repeats.

# %%
methods = ("exact", "jvp", "finite_difference")
repeats = {
    method: [
        rk.perturbation_stability(
            theirs, x_test[points], method=method, radius=0.01, generator=stream_generator(k, method)
        )
        for k in range(20)
    ]
    for method in methods
}

# %% [markdown]
# *Standard error* is over points: it matters when the points are taken as a sample of the data. *Over repeats* is
# the scatter on fixed points: it matters when two networks are compared on the same points, as in all later
# notebooks. Seconds are for this machine and one thread, the shortest of ten calls.

# %%
calls = {m: lambda m=m: rk.perturbation_stability(theirs, x_test[points], method=m) for m in methods}
estimators = pandas.DataFrame(
    {
        "value": {m: sum(e.mean for e in repeats[m]) / 20 for m in methods},
        "standard error": {m: repeats[m][0].sem for m in methods},
        "over repeats": {m: pandas.Series([e.mean for e in repeats[m]]).std() for m in methods},
        "seconds": {m: min(timeit.repeat(call, number=1, repeat=10)) for m, call in calls.items()},
    }
)
estimators["variance x seconds"] = estimators["standard error"] ** 2 * estimators["seconds"]
estimators  # not written to a file: seconds differ from run to run

# %% [markdown]
# Which estimator has the smallest product of variance and time (last column; smaller is better) depends on the
# network and the machine. Where points are plentiful, a sampled estimator is a fair choice. On fixed points only
# `exact` has no noise beyond rounding, so the sweeps use it: two networks then differ only by what they are.
#
# ## Linear in the radius
#
# > [...] Then, under a small perturbation $\epsilon$, we have the following: [...] (NeurIPS, Theorem 1)
#
# By its definition $P$ is linear in $\epsilon$ at every radius, small or not. A small radius matters for the
# response to an actual *perturbed input*. The difference quotient $\mathbb{E}\|f(x + u) - f(x)\|_2 / \epsilon$
# equals $P/\epsilon$ as long as $x$ and $\hat x$ share a linear region.
#
# The table samples $P$ as defined, with fresh directions at each radius. A $P/\epsilon$ that drifts with $\epsilon$
# by more than its standard error would contradict linearity. Its last column divides the quotient by the derivative
# in the *same* directions, so that the sampling noise cancels to leading order.

# %%
radii, jacobians = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0), jacobian(theirs, x_test[points])
balls = [
    rk.sample_ball(len(points) * 40, 64, radius=e, generator=stream_generator(i, "ball")) for i, e in enumerate(radii)
]
changes = [
    torch.einsum("nod,nkd->nko", jacobians, u.double().reshape(len(points), 40, 64)).norm(dim=2) for u in balls
]
linear = pandas.DataFrame({"eps": radii, "P, sampled": [c.mean().item() for c in changes]})
linear["P/eps, sampled"] = linear["P, sampled"] / linear["eps"]
linear["its standard error"] = [c.std(1).mean().item() / e / math.sqrt(c.numel()) for e, c in zip(radii, changes)]
linear["P/eps, exact"] = rk.expected_norm(jacobians).mean().item()

# %%
shared, images = stream_generator(0, "shared"), x_test[points]
directions = torch.stack([rk.sample_ball(len(points), 64, generator=shared).double() for _ in range(4)])
derivative = torch.einsum("nod,knd->kno", jacobians, directions).norm(dim=2).mean()
with torch.no_grad():
    moved = [theirs((images + e * directions).flatten(0, 1)) - theirs(images).repeat(4, 1) for e in radii]
linear["quotient / derivative"] = [(m.norm(dim=1).mean() / e / derivative).item() for e, m in zip(radii, moved)]
print(f"mean length of an image: {x_test[points].norm(dim=1).mean():.2f}")
plots.save_table(linear, "N_linear", where)

# %% [markdown]
# Sampled and exact $P/\epsilon$ agree over three decades of $\epsilon$, up to sampling noise. The last column
# leaves 1 once the ball reaches beyond one linear region, long before $\epsilon$ is the length of an image (printed
# above). A difference quotient at a large radius is therefore a different quantity. This companion reports
# $P/\epsilon$.
#
# ## The training loop
#
# > Unless mentioned otherwise, all models are trained for 50 epochs with a batch size of 64. The initial value
# > of the learning rate is 0.001. After the first 25 epochs, the learning rate is multiplied by a factor of 0.1
# > every 10 epochs. The SGD is used to optimize all the models, while the cross-entropy loss is used.
#
# Here for two epochs on digits, in float64. The learning rate drops after half, seven tenths and nine tenths of
# training, as in the paper's 50 epochs:

# %%
cell = rk.Cell(width=width, depth=depth, seed=seed, epochs=2, lr=0.05, precision="float64", points=256)
order, step = stream_generator(seed, "order"), 0
for _ in range(2):
    for batch in torch.randperm(len(x_train), generator=order).split(64):
        for weight in weights:
            weight.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(network(weights, x_train[batch]), data.y_train[batch])
        gradients = torch.autograd.grad(loss, weights)
        lr = 0.05 * 0.1 ** sum(step >= round(part * 46) for part in (0.5, 0.7, 0.9))  # 46 steps in all
        weights = [(w - lr * g).detach() for w, g in zip(weights, gradients)]
        step += 1

# %% [markdown]
# `robustkit` trains and measures the same network. Loss and stability agree:

# %%
row = measure(cell)["measures"]
loss = torch.nn.functional.cross_entropy(network(weights, x_train), data.y_train)
values = rk.expected_norm(torch.vmap(torch.func.jacrev(lambda z: network(weights, z)))(x_test[points]))
plain = {"train_loss": loss.item(), "stability": values.mean().item()}
for name, value in plain.items():
    assert math.isclose(value, row[name], rel_tol=1e-6), f"{name}: plain {value}, robustkit {row[name]}"
pandas.DataFrame({"plain": plain, "robustkit": {name: row[name] for name in plain}})

# %% [markdown]
# ## $P$ and the norm of the Jacobian
#
# Up to a constant, $P/\epsilon$ is nearly the Frobenius norm of the Jacobian: averaging over directions adds very
# little. With $c_d = \frac{d}{d+1} \big/ \mathbb{E}\|g\|_2$, the factor that turns a mean over Gaussian vectors $g$
# into a mean over the ball,
#
# $$\sqrt{2/\pi}\, c_d\, \|J\|_F \leq P/\epsilon \leq \|J\|_F / \sqrt{d+2}.$$
#
# The upper limit is Jensen's inequality, $(\mathbb{E}\|Ju\|)^2 \leq \mathbb{E}\|Ju\|^2$. The lower one is attained
# by a Jacobian of rank one, such as that of a network with one output. A single point outside the two limits would
# contradict them.

# %%
low, high = frobenius_sandwich(64)
trained = torch.vmap(torch.func.jacrev(lambda z: network(weights, z)))(x_test[points])
kinds = {
    "one output": jacobians[:, :1],
    "two outputs": jacobians[:, :2],
    "ten outputs, at the start": jacobians,
    "ten outputs, trained": trained,
    "the identity": torch.eye(64, dtype=torch.float64)[None],
}

# %%
ratios = {kind: rk.expected_norm(j) / j.flatten(1).norm(dim=1) for kind, j in kinds.items()}
sandwich = pandas.DataFrame(
    [
        {"Jacobian": kind, "lower end": low, "least of the points": r.min().item()}
        | {"largest of the points": r.max().item(), "upper end": high}
        for kind, r in ratios.items()
    ]
)
assert all((r > low * (1 - 1e-9)).all() and (r < high * (1 + 1e-9)).all() for r in ratios.values())
plots.save_table(sandwich, "N_sandwich", where)

# %% [markdown]
# All points lie between the limits: rank-one Jacobians on the lower one, the identity close to the upper one. The
# limits are close together, so $P$ ranks networks almost as $\|J\|_F$ does.
#
# The proof of Theorem 1 (workshop, B.2) uses the same Jensen step for its second term. Over directions that step
# costs little. The proof takes it over the weights as well; the last column of Table 1 below shows what that costs.
#
# ## At initialisation, exactly
#
# The mean of $P/\epsilon$ over initial weights has a closed form, for any input and any of the schemes. With $M_m$
# the mean factor by which a ReLU layer of unit variance and width $m$ stretches a vector, and $\mathbb{E}\chi_o$
# the mean norm of $o$ standard Gaussians,
#
# $$\mathbb{E}_W P/\epsilon = \frac{1}{\alpha} \frac{d}{d+1}\, \beta_1 M_m\, (\beta M_m)^{L-2}\, \beta_L\, \mathbb{E}\chi_o$$
#
# (`rk.theory.stability_at_init`). It rests on the law of one layer in the workshop's Lemma 2, and on the same law
# when the signs $D$ come from a vector other than the one that is propagated. The workshop uses this second form
# without stating it; row T02 of the ledger (notebook 6) tests both.
#
# Each row of the table compares the formula with the mean of fifty independently initialised networks. Twelve rows
# are twelve tests: one $|z|$ beyond 2 is no surprise. One beyond 4, or all of the same sign, would contradict the
# formula.

# %%
grid = [(init, m, L) for init in ("lecun", "he", "ntk") for m in (16, 64) for L in (2, 6)]
few = x_test[points[:20]]
starts = [
    [
        rk.FCN(width=m, depth=L, d_in=64, d_out=10, init=init, generator=stream_generator(s, f"{init} {m} {L}"))
        for s in range(50)
    ]
    for init, m, L in grid
]
at_start = torch.stack([torch.stack([jacobian(net.double(), few) for net in nets]) for nets in starts])

# %%
initial = pandas.DataFrame(grid, columns=["init", "m", "L"])
means = rk.expected_norm(at_start).mean(2)  # (rows, 50): one P/eps per network
initial["mean of 50"] = means.mean(1)
initial["standard error"] = means.std(1) / math.sqrt(50)
initial["exact"] = [theory.stability_at_init(i, width=m, depth=L, d_in=64, d_out=10) for i, m, L in grid]
initial["z"] = (initial["mean of 50"] - initial["exact"]) / initial["standard error"]
plots.save_table(initial, "N_initial", where).round(3)

# %% [markdown]
# ## How many seeds an initial value needs
#
# Narrow and deep networks need most. The same law gives the fourth moment, for one fixed perturbation $u$ and for
# every scheme alike:
#
# $$\mathbb{E}\|Ju\|^4 / (\mathbb{E}\|Ju\|^2)^2 = (1 + 5/m)^{L-1} (1 + 2/o).$$
#
# The second moment is exact too. For $\|u\| = 1$ it is the square of the second term in the workshop's B.2,
# $\mathbb{E}\|Ju\|^2 = \frac{mo}{2} \beta_1^2 \beta_L^2 \gamma^{2(L-2)}$. (Its Lemma 5 is an equality if
# $\epsilon^2$ is replaced by $\mathbb{E}\|\delta\|^2 = \epsilon^2 d/(d+2)$; the $t_l$ of its proof omits its
# matrices $W_l \cdots W_2$. Row T03 of the ledger.)
#
# The table divides the measured mean fourth power by the *exact* second moment squared. Dividing by the square of
# the sample mean would bias the ratio downwards, since the networks with a large response raise both. What remains
# is noise, most of it in the rows where the ratio is large. Measured ratios that miss the formula in the same
# direction in most rows would contradict it.
#
# The ratio minus 1 bounds the relative variance of $\|J\|_F^2$ over networks, since averaging over $u$ can only
# lower the variance.

# %%
direction = torch.nn.functional.normalize(torch.randn(20, 64, generator=stream_generator(0, "one direction")), dim=1)
response = torch.einsum("rsnod,nd->rsno", at_start, direction.double()).square().sum(-1)  # (rows, 50, points)
mean_response = at_start.square().sum((-1, -2)).mean(2)  # (rows, 50)
terms = [theory.theorem1_terms(i, width=m, depth=L, d_in=64, d_out=10, version="proof")[1] for i, m, L in grid]
second = torch.tensor(terms, dtype=torch.float64) ** 2  # E ||Ju||^2; E ||J||_F^2 is d = 64 times as much

# %%
spread = initial[["init", "m", "L"]].copy()
spread["second moment over exact"] = response.mean((1, 2)) / second
spread["fourth moment, 50 networks"] = response.square().mean((1, 2)) / second**2
spread["its standard error"] = response.square().mean(2).std(1) / math.sqrt(50) / second**2
spread["formula"] = [theory.stability_spread(width=m, depth=L, d_out=10) for _, m, L in grid]
spread["relative variance, averaged over u"] = mean_response.var(1) / (64 * second) ** 2
spread["its bound"] = spread["formula"] - 1
plots.save_table(spread, "N_spread", where).round(3)

# %% [markdown]
# Narrow and deep networks scatter most, under every scheme: there, a curve of initial values over a few seeds is
# rough. The measured relative variance stays below its bound in every row (last two columns).
#
# ## Table 1, with numbers
#
# The bounds are orders: "$\lesssim$" hides a constant, and the two versions of the paper keep different ones. The
# table evaluates each as printed, for MNIST ($d = 784$, $o = 10$), beside the exact mean of $P/\epsilon$ at
# initialisation.

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
table1["second term / exact"] = table1["B.2, second term"] / table1["exact at initialisation"]
plots.save_table(table1, "N_Table1", where).round(4)

# %% [markdown]
# The last column is what Jensen's inequality over directions and weights costs. It is the same for every scheme,
# and small for a wide or shallow network.

# %%
by_shape = table1.groupby(["m", "L"])["second term / exact"].max()
(wide, shallow), (narrow, deep) = by_shape.idxmin(), by_shape.idxmax()
print(f"second term / exact: {by_shape.min():.3f} at m = {wide}, L = {shallow}")
print(f"second term / exact: {by_shape.max():.3f} at m = {narrow}, L = {deep}")

# %% [markdown]
# ## Table 2, with numbers
#
# > Table 2: Comparison of the orders of the proposed bound with other two recent works. [...] (The original
# > result of [Wu et al., 2021] can be reduced to $\sqrt{mL}$ as the $\frac{m}{(\log m)^6} \geq L^{12}$
# > condition is required).
#
# These are for the NTK initialisation. Each column hides its own constant, so only shapes in $m$ and $L$ can be
# compared. The two versions of the paper differ only in their own column, by a factor of
# $\sqrt{\pi/4} \approx 0.886$ in its first term.

# %%
sizes2 = [{"width": s["width"], "depth": s["depth"], "d_out": 10} for s in shapes]
ours = {version: [theory.table2(**s, version=version)["ours"] for s in sizes2] for version in ("neurips", "workshop")}
table2 = pandas.DataFrame([{"m": s["width"], "L": s["depth"]} | theory.table2(**s) for s in sizes2])
table2 = table2.rename(columns={"ours": "ours, neurips"})
table2.insert(3, "ours, workshop", ours["workshop"])
plots.save_table(table2, "N_Table2", where).round(2)

# %% [markdown]
# ## Measure your own model
#
# Any classifier will do: a module or callable from a batch to logits, and a float tensor of points of shape
# `(n, ...)`, or a data loader. The example is a ResNet-18 with random weights. `eval()` freezes batch normalisation
# and switches dropout off. Without it a point's logits would depend on the rest of the batch and on chance, and the
# call would be refused. `exact` costs one backward pass per logit, `jvp` a single pass in forward mode.

# %%
import torchvision

torch.manual_seed(seed)
model = torchvision.models.resnet18(weights=None, num_classes=10).eval()
x = torch.rand(32, 3, 64, 64)  # your points, in your model's own scaling
for method in ("exact", "jvp"):
    estimate = rk.perturbation_stability(model, x, method=method, generator=stream_generator(seed, method))
    print(estimate)

# %% [markdown]
# An estimate also holds the value at each point. The most sensitive points are worth a look:

# %%
print("the three most sensitive points:", estimate.values.argsort(descending=True)[:3].tolist())

# %% [markdown]
# To compare models, measure them on the same points. `rk.compare` pairs them: what makes a point hard for each of them
# cancels in the ratio, so its interval is narrow. Below are networks of several widths at initialisation, on test
# digits, with their labels for loss and accuracy. **What would contradict the theory:** an interval that misses the
# ratio of the exact means by far more than one draw of the weights scatters. [The guide](../docs/measure.md) has more:
# which method to take, loaders and GPUs, models of other libraries, and what is a large value.

# %%
untrained = {
    f"width {m}": rk.FCN(width=m, depth=3, d_in=64, d_out=10, generator=stream_generator(m, "compared")).double()
    for m in (16, 64, 256)
}
compared = rk.compare(untrained, x_test[points], data.y_test[points])
compared.round(4)

# %%
figure, (ax,) = plots.panels(1, width=4, height=1.7)
plots.comparison(compared, ax)

# %% [markdown]
# ## Your turn
#
# This cell measures a network at initialisation, with numbers that you choose: change them and run it again. What
# does a fourfold width do, and what a greater depth, under each scheme?

# %%
m, L, eps, scheme = 64, 4, 0.5, "he"  # width, depth, radius; "he", "lecun" or "ntk"
images, own_seed = 100, 0  # how many test digits; which network
mine = rk.FCN(width=m, depth=L, d_in=64, d_out=10, init=scheme, generator=stream_generator(own_seed, "mine")).double()
quotient = rk.perturbation_stability(
    mine, x_test[:images], method="finite_difference", radius=eps, draws=10, generator=stream_generator(0, "eps")
)
exact = rk.perturbation_stability(mine, x_test[:images])
expected = theory.stability_at_init(scheme, width=m, depth=L, d_in=64, d_out=10)
print(f"this network: P = {eps * exact.mean:.4f}, P/eps = {exact.mean:.4f}")
print(f"perturbed by up to eps: {quotient.mean:.4f}; expected over networks: {expected:.4f}")

# %% [markdown]
# ## What we saw
#
# - $P(f, \epsilon)/\epsilon$ does not depend on $\epsilon$: it is an average of $\|Ju\|$ and can be computed
#   exactly. A difference quotient agrees as long as the perturbation stays within one linear region.
# - It is the Frobenius norm of the Jacobian up to a factor between two close limits.
# - Its mean over initial weights is known exactly, and so is a bound on how far a single network strays from it.
# - The network, the metric and the training loop are thirty lines, and `robustkit` gives the same numbers.
# - At initialisation the second term of Theorem 1 is close to the exact value in wide or shallow networks, and up
#   to half as large again in narrow and deep ones (last column of Table 1, and the two lines below it). The first
#   term is the one that rises and falls with width. What training does to $P$ is the subject of the next
#   notebooks.
