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
# <a href="https://mybinder.org/v2/gh/OWNER/robustkit/HEAD?labpath=notebooks%2F06_claims.ipynb"><img src="https://mybinder.org/badge_logo.svg" alt="Open in Binder"></a> <a href="https://colab.research.google.com/github/OWNER/robustkit/blob/main/notebooks/06_claims.ipynb"><img src="https://colab.research.google.com/assets/colab-badge.svg" alt="Open in Colab"></a>
#
# Each row is a statement of the paper that a run or a calculation can decide, in the paper's words, with a
# criterion fixed before the shipped runs (but for the rules named below) and a verdict that is computed from
# the rows. *Missing* names the trainings that would decide a row; *inconclusive* says that the interval allows
# both answers; *outside hypotheses* says what a run does not meet; *measured* asks for no verdict. None of
# them is a verdict on the authors: their code was not to be found, and the text leaves choices open, which
# [the README](../README.md) lists. A column is left for their response.
#
# E is an empirical claim, T one of the theory. A claim is judged under every *reading* that the rows allow
# (data scaling, loss, schedule, rate rule, training to a common loss, the $c$ of $\beta = m^{-c}$); readings are
# never pooled. Three kinds of reading are shown small and are not counted: one that lacks some of the claim's curves,
# one whose networks have not left their start (a network at its start is stable, but was not trained), and one of the
# proxy schedule where that moves $P$ by more than the seeds' spread, as shown below.

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
profile = "shipped"  # type: str  # smoke, laptop, paper: train what is missing; shipped: judge the committed rows
device = "auto"  # type: str  # auto, cpu, cuda
seeds = None  # type: list|None  # such as [0, 1]; None takes the profile's
widths = None  # type: list|None  # such as [16, 64]; None takes the profile's

# %%
import pandas
from IPython.display import Markdown

import robustkit as rk
from robustkit import plots
from robustkit.ledger import proxy_schedule, sentences, verdicts
from robustkit.profiles import profile_cells
from robustkit.training.remeasure import FURTHER

# %%
rows = rk.collect("all", profile, device=device, seeds=seeds, widths=widths)
measured = [] if profile == "smoke" else FURTHER  # what trainings were run again for, on MNIST
further = {name: rk.load_further(name, local=profile != "shipped") for name in measured}
ledger = verdicts.save(verdicts.ledger(rows, further=further), profile)
print(f"{len(rows)} trainings; {len(rows.attrs['missing'])} of the grid are missing")

# %% [markdown]
# ## In ten seconds
#
# A framed square is the verdict under the main reading, the others are the other readings, the smallest of them not
# counted. *Open* is what the rows cannot decide yet, which is no verdict against a claim. The ten headline claims
# stand first.

# %%
figure, (ax,) = plots.panels(1, width=7.2, height=7.6)
plots.ledger_picture(ledger, ax)
plots.save(figure, "ledger", profile, rows)

# %% [markdown]
# ## The ten headline claims, with their numbers
#
# Under the main reading; numbers in brackets are 95 % intervals over seeds.

# %%
Markdown(sentences.save(sentences.found(rows, ledger), profile))

# %% [markdown]
# ## In how many readings does a headline claim hold?
#
# A specification curve: each column is one reading of what the paper leaves open. The black frame marks the
# reading that gives the verdict.

# %%
tried = [r.id for r in ledger.head(10).itertuples() if len(r.readings_detail) > 2]
figure, (ax,) = plots.panels(1, width=7.2, height=7.0)
if tried:
    plots.specification_curve(ledger, ax, ids=tried)
plots.save(figure, "specification", profile, rows)

# %% [markdown]
# ## May a tenth of the steps stand for all of them?
#
# Other readings than the main one train for a tenth of the steps at ten times the rate: the same time of gradient
# flow. Here the same networks, from the same first weights, were trained under both schedules. **What would speak
# against the proxy:** a ratio away from 1 by more than the standard deviation over seeds (a ring).

# %%
figure, axes = plots.panels(3, width=3.1, height=3.6)
table = plots.proxy_ratios(rows, axes)
plots.save(figure, "proxy", profile, proxy_schedule.trained_twice(rows, profile))

# %%
plots.save_table(table, "proxy_pairs", profile).round(3)

# %% [markdown]
# ## Which runs meet which assumptions
#
# The figures of the paper train with cross-entropy, which no theorem of the paper covers; the controls
# `theorem1`, `theorem2` and `theorem3` are the runs that meet the assumptions. "m >> d" is read as ten times.

# %%
card = plots.hypothesis_card(profile_cells(profile))
plots.save_table(card.reset_index(), "hypotheses", profile)
pandas.set_option("display.max_rows", None)
card.T[[f"Theorem {k}" for k in (1, 2, 3)]]  # which assumption fails stands in the file plots.md

# %% [markdown]
# ## The story, told with its verdicts
#
# Verdicts and findings below are computed; *finding* is the first and the last thing seen under the main reading,
# with 95 % intervals, and the whole of it stands in the ledger at the end.

# %%
pandas.set_option("display.max_colwidth", None)
columns = ["id", "claim", "verdict", "readings", "finding"]
story = ledger.set_index("id", drop=False)
said = {name: f"{name}: *{verdict}*" for name, verdict in story["verdict"].items()}

# %%
Markdown(
    "**Width (the good).** The paper's picture is a rise, a peak, a fall and a constant. "
    f"The peak under He is {said['E06']}, under He and LeCun {said['E11']}, under NTK {said['E19']}; its place in "
    f"depth {said['T08']}; the constant at the end {said['T09']}. That $P$ grows by less than the square root of "
    f"the width, which earlier bounds allow, is {said['T15']}. At the start of training there is no peak: the exact value "
    f"rises to a constant, and the theorem's second term covers it ({said['T04']}). A peak would be the work of "
    "training, and the width at which training is longest differs with the rate: notebook 2 shows both."
)

# %%
story.loc[["E06", "E11", "E19", "T08", "T09", "T15", "T04"], columns].reset_index(drop=True)

# %%
Markdown(
    "**Depth (the bad) and initialisation (the ugly).** He networks should suffer from depth "
    f"({said['E09']}), NTK networks too ({said['E21']}), LeCun networks should gain ({said['E10']}) and be harder "
    f"to train ({said['T17']}); a gain above 1 should explode ({said['T16']}), and the conclusion adds a turn "
    f"({said['E18']}). Before training all of this is exact, and the LeCun half is the paper's: $P$ falls by "
    f"$\\sqrt 2$ a layer ({said['T05']}). What training makes of it depends on how far the deep networks get: the "
    "controls in the ledger compare depths at one training loss."
)

# %%
story.loc[["E09", "E10", "E21", "T17", "T16", "E18", "T05"], columns].reset_index(drop=True)

# %%
Markdown(
    f"**Lazy and non-lazy.** The lazy networks move little ({said['E01']}) and less the wider they are "
    f"({said['E02']}, {said['E17']}); the non-lazy ones move far ({said['E05']}), in a straight line of time by the "
    f"paper ({said['E03']}), and end with a smaller $P$ ({said['E07']}) that falls with width ({said['E08']}, "
    f"{said['E13']}), at a training loss that rises with it. On small runs made to meet the theorems' assumptions, "
    f"Theorem 2's conclusion is {said['T11']}, and so far as the start of training goes Theorem 3's rate {said['T12']}."
)

# %%
lazy = ["E01", "E02", "E03", "E04", "E05", "E16", "E17", "E07", "E08", "E13", "E14", "T11", "T12", "E20"]
story.loc[lazy, columns].reset_index(drop=True)

# %%
Markdown(
    f"**The proofs.** The lemmas about random networks are exact ({said['T01']}, {said['T02']}, {said['T03']}, "
    f"{said['T10']}). The lemma that is to carry the bound from the start to the end of training is not what is "
    f"measured ({said['T06']}), and the bound itself holds up to a constant in part ({said['T07']}; during training "
    f"{said['T18']}). That the radius on which Appendix D rests is positive is {said['T13']}, its Gram matrix lemmas {said['T14']}, as "
    "printed in the workshop version; the NeurIPS supplement was not at hand and may differ."
)

# %%
proofs = ["T01", "T02", "T03", "T10", "T06", "T07", "T18", "T13", "T14"]
story.loc[proofs, columns].reset_index(drop=True)

# %%
Markdown(
    f"**Beyond the fully connected net.** That the gap between depths is much larger in a CNN is {said['E12']} under the "
    f"heads tried; that lazy and non-lazy ResNet-110 reach a similar accuracy is {said['E15']}; how $P$ goes with "
    f"Lipschitz constants and attacks is {said['E22']} (notebook 5)."
)

# %%
story.loc[["E12", "E15", "E22"], columns].reset_index(drop=True)

# %% [markdown]
# ## Your turn
#
# Name a claim by its id and run the cell: its criterion, all that was seen, and what each other reading gives. Would
# you have judged it by that criterion?

# %%
claim = "E09"  # the id of any row above
(mine,) = verdicts.ledger(rows, further=further, only=[claim]).itertuples()
Markdown("\n".join([f"**{mine.claim}**: {mine.criterion}\n", *(f"- {line}" for line in mine.evidence.split("\n"))]))

# %% [markdown]
# ## The ledger in full

# %%
Markdown(verdicts.to_markdown(ledger))
