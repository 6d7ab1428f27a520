# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. The ledger: what holds, where, and how surely
#
# This notebook judges the paper's claims on the rows of all the others. Each row of the ledger is a statement that
# a run or a calculation can decide, in the paper's words. Its criterion was fixed before the shipped runs (except
# for the rules named at the head of the ledger), and its verdict is computed from the rows. **What contradicts the
# paper** is stated row by row, as that criterion.
#
# - *Inconclusive*: the interval allows both answers.
# - *Missing*: the row names the runs that would decide it.
# - *Outside hypotheses*: the row says which assumption the runs do not meet.
# - *Measured*: the row asks for no verdict.
#
# None of these is a verdict on the authors. Their code could not be found, and the text leaves choices open, which
# [the README](../README.md) lists. The ledger has a column for their response.
#
# Ids that begin with E are empirical claims, those with T theoretical ones. A claim is judged under every *reading*
# that the rows allow. A reading is one interpretation of a choice the paper leaves open: data scaling, loss,
# schedule, how the learning rate depends on width, training to a common loss, the $c$ of $\beta = m^{-c}$. Readings
# are never pooled. Three kinds of reading are drawn small and not counted:
#
# - one that lacks some of the claim's curves;
# - one whose networks have not left their start (such a network is stable, but was not trained);
# - one on the short schedule (a tenth of the steps at ten times the learning rate) where this schedule changes
#   $P$ by more than the spread over seeds, as shown below.

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
profile = "shipped"  # type: str  # smoke, laptop, paper: train what is missing; shipped: judge the committed rows
device = "auto"  # type: str  # auto, cpu, cuda
seeds = None  # type: list|None  # such as [0, 1]; None takes the profile's
widths = None  # type: list|None  # such as [16, 64]; None takes the profile's

# %%
import pandas
from IPython.display import Markdown

import robustkit as rk
from robustkit import plots
from robustkit.ledger import answer, proxy_schedule, sentences, verdicts
from robustkit.profiles import profile_cells
from robustkit.training.remeasure import FURTHER

where = plots.folder(profile, seeds=seeds, widths=widths)

# %%
rows = rk.collect("all", profile, device=device, seeds=seeds, widths=widths)
measured = [] if profile == "smoke" else FURTHER  # what MNIST runs were repeated for
further = {name: rk.load_further(name, local=profile != "shipped") for name in measured}
ledger = verdicts.save(verdicts.ledger(rows, further=further), where)
print(f"{len(rows)} runs; {len(rows.attrs['missing'])} of the grid are missing")

# %% [markdown]
# ## The answer in five lines
#
# In the setting of the paper's figures, and under the hypotheses of its Theorem 1: unit norm, squared loss, a constant
# learning rate, every network trained to one loss. $m$ is the width, $L$ the depth, numbers in square brackets are
# 95 % intervals over seeds, and the word in italics is the ledger's verdict.

# %%
Markdown(sentences.save(answer.answer(rows, ledger), where, "answer"))

# %% [markdown]
# ## In ten seconds
#
# The framed square is the verdict under the main reading, the others are the other readings, and the smallest of
# them are not counted. *Open* is what the rows cannot decide yet, which is no verdict against a claim. The ten
# headline claims stand first.

# %%
figure, (ax,) = plots.panels(1, width=7.2, height=7.6)
plots.ledger_picture(ledger, ax)
plots.save(figure, "ledger", where, rows)

# %% [markdown]
# ## The ten headline claims, with their numbers
#
# These are under the main reading; numbers in brackets are 95 % intervals over seeds.

# %%
Markdown(sentences.save(sentences.found(rows, ledger), where))

# %% [markdown]
# ## In how many readings does a headline claim hold?
#
# This is a specification curve: each column is one reading, and the black frame marks the reading that gives the
# verdict.

# %%
tried = [r.id for r in ledger.head(10).itertuples() if len(r.readings_detail) > 2]
figure, (ax,) = plots.panels(1, width=7.2, height=7.0)
if tried:
    plots.specification_curve(ledger, ax, ids=tried)
plots.save(figure, "specification", where, rows)

# %% [markdown]
# ## Can the short schedule stand in for the paper's?
#
# Mostly at two layers, and at unit norm. With raw or standardised pixels it lowers $P$ of deeper networks, and the
# more so the deeper they are. Many readings other than the main one use the short schedule, which trains for the
# same time of gradient flow. Here the same networks, from the same initial weights, were trained under both
# schedules. **What would contradict the short schedule:** a ratio that differs from 1 by more than the standard
# deviation over seeds (drawn as a ring).

# %%
figure, axes = plots.panels(3, width=3.1, height=3.6)
table = plots.proxy_ratios(rows, axes)
plots.save(figure, "proxy", where, proxy_schedule.trained_twice(rows, profile))

# %%
plots.save_table(table, "proxy_pairs", where).round(3)

# %% [markdown]
# ## Which runs meet which assumptions
#
# The figures of the paper train with cross entropy, which no theorem of the paper covers. The controls `theorem1`,
# `theorem2` and `theorem3` are the runs made to meet the assumptions. "m >> d" is taken as a factor of ten.

# %%
card = plots.hypothesis_card(profile_cells(profile))
plots.save_table(card.reset_index(), "hypotheses", where)
pandas.set_option("display.max_rows", None)
card.T[[f"Theorem {k}" for k in (1, 2, 3)]]  # which assumption fails stands in the file hypotheses.md

# %% [markdown]
# ## The claims section by section
#
# Verdicts and findings below are computed. *Finding* is the first and the last observation under the main reading,
# with 95 % intervals; all of them are in the ledger at the end.

# %%
pandas.set_option("display.max_colwidth", None)
columns = ["id", "claim", "verdict", "parts", "under_theorem1", "readings", "finding"]
story = ledger.set_index("id", drop=False)
said = {name: f"{name}: *{verdict}*" for name, verdict in story["verdict"].items()}

# %%
Markdown(
    "**Width (the good).** The paper's picture is a rise, a peak, a fall and a constant. "
    f"The peak under He is {said['E06']}, under He and LeCun {said['E11']}, under NTK {said['E19']}; "
    f"that its place moves like $L^3$ is {said['T08']}, and the constant at the end {said['T09']}. "
    f"That $P$ grows by less than the square root of the width, which earlier bounds allow, is {said['T15']}. "
    "At initialisation there is no peak: the exact value rises to a constant, and the theorem's second term "
    f"bounds it ({said['T04']}). So a peak would have to come from training, and the width at which networks are "
    "trained furthest depends on the learning rate. Notebook 2 shows both."
)

# %%
story.loc[["E06", "E11", "E19", "T08", "T09", "T15", "T04"], columns].reset_index(drop=True)

# %%
Markdown(
    "**Depth (the bad) and initialisation (the ugly).** By the paper, depth hurts He networks "
    f"({said['E09']}) and NTK networks ({said['E21']}), and helps LeCun networks ({said['E10']}), which become "
    f"harder to train ({said['T17']}). With a gain above 1 it hurts exponentially ({said['T16']}). The conclusion "
    f"adds that robustness first gets worse with depth and then better ({said['E18']}). Before training all of this "
    f"is known exactly, and there the paper is right about LeCun: $P$ falls by $\\sqrt 2$ per layer ({said['T05']}). "
    "What training makes of it depends on how far the deep networks get. The controls in the ledger compare depths "
    "at one training loss."
)

# %%
story.loc[["E09", "E10", "E21", "T17", "T16", "E18", "T05"], columns].reset_index(drop=True)

# %%
Markdown(
    f"**Lazy and non-lazy.** The lazy networks move little ({said['E01']}), and less the wider they are "
    f"({said['E02']}, {said['E17']}). The non-lazy ones move far ({said['E05']}), linearly in time by the paper "
    f"({said['E03']}). They end with a smaller $P$ ({said['E07']}), which falls with width ({said['E08']}, "
    f"{said['E13']}) while their training loss rises. On small runs made to meet the theorems' assumptions, "
    f"Theorem 2's conclusion is {said['T11']}, and Theorem 3's rate, early in training, is {said['T12']}."
)

# %%
lazy = ["E01", "E02", "E03", "E04", "E05", "E16", "E17", "E07", "E08", "E13", "E14", "T11", "T12", "E20"]
story.loc[lazy, columns].reset_index(drop=True)

# %%
Markdown(
    f"**The proofs.** The lemmas about random networks are exact ({said['T01']}, {said['T02']}, {said['T03']}, "
    f"{said['T10']}). Lemma 4, which is to carry the bound from the start of training to its end, is compared with "
    f"measured Jacobians ({said['T06']}), and the bound itself with trained networks, up to a constant "
    f"({said['T07']}; during training {said['T18']}). That the radius on which Appendix D rests is positive is "
    f"{said['T13']}, and its lemmas on the Gram matrix are {said['T14']}. This is about the workshop version as "
    "printed; the NeurIPS supplement was not available and may differ."
)

# %%
proofs = ["T01", "T02", "T03", "T10", "T06", "T07", "T18", "T13", "T14"]
story.loc[proofs, columns].reset_index(drop=True)

# %%
Markdown(
    "**Beyond the fully connected net.** That the gap between depths is much larger in a CNN is "
    f"{said['E12']}, under the heads tried. That lazy and non-lazy ResNet-110 reach a similar accuracy is "
    f"{said['E15']}. How $P$ relates to Lipschitz constants and attacks is {said['E22']} (notebook 5)."
)

# %%
story.loc[["E12", "E15", "E22"], columns].reset_index(drop=True)

# %% [markdown]
# ## Your turn
#
# Name a claim by its id and run the cell: it prints the claim's criterion, everything that was observed, and what
# each other reading gives. Would you have judged the claim by that criterion?

# %%
claim = "E09"  # the id of any row above
(mine,) = verdicts.ledger(rows, further=further, only=[claim]).itertuples()
Markdown("\n".join([f"**{mine.claim}**: {mine.criterion}\n", *(f"- {line}" for line in mine.evidence.split("\n"))]))

# %% [markdown]
# ## What we saw: the ledger in full

# %%
Markdown(verdicts.to_markdown(ledger))
