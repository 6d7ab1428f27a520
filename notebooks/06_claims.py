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
# Each row is a statement of the paper that a run or a calculation can decide, in the paper's words, with a
# criterion fixed before the shipped runs (but for the rules named below) and a verdict that is computed from
# the rows. *Missing* names the trainings that would decide a row; *inconclusive* says that the interval allows
# both answers; *outside hypotheses* says what a run does not meet; *measured* asks for no verdict. None of
# them is a verdict on the authors: their code was not to be found, and the text leaves choices open, which
# [the README](../README.md) lists. A column is left for their response.
#
# E is an empirical claim, T one of the theory. A claim is judged under every *reading* that the rows allow
# (data scaling, loss, schedule, rate rule, training to a common loss); readings are never pooled.

# %% tags=["parameters"]
profile = "shipped"  # smoke, laptop, paper: train what is missing; shipped: judge the committed rows
device = "auto"  # auto, cpu, cuda
seeds = None  # a list such as [0, 1]; None takes the profile's
widths = None  # a list such as [16, 64]; None takes the profile's

# %%
import pandas
from IPython.display import Markdown

import robustkit as rk
from robustkit import cards, claims, figures
from robustkit.further import FURTHER
from robustkit.profiles import profile_cells

# %%
rows = rk.collect("all", profile, device=device, seeds=seeds, widths=widths)
measured = [] if profile == "smoke" else FURTHER  # what trainings were run again for, on MNIST
further = {name: rk.load_further(name, local=profile != "shipped") for name in measured}
ledger = claims.save(claims.ledger(rows, further=further), profile)
print(f"{len(rows)} trainings; {len(rows.attrs['missing'])} of the grid are missing")

# %% [markdown]
# ## In ten seconds
#
# A large square is the verdict under the main reading, small ones are the other readings. The ten headline
# claims stand first.

# %%
figure, (ax,) = figures.panels(1, width=7.2, height=7.6)
cards.ledger_picture(ledger, ax)
figures.save(figure, "ledger", profile, rows)

# %% [markdown]
# ## In how many readings does a headline claim hold?
#
# A specification curve: each column is one reading of what the paper leaves open. The black frame marks the
# reading that gives the verdict.

# %%
tried = [r.id for r in ledger.head(10).itertuples() if len(r.readings_detail) > 2]
figure, (ax,) = figures.panels(1, width=7.2, height=4.6)
if tried:
    cards.specification_curve(ledger, ax, ids=tried)
figures.save(figure, "specification", profile, rows)

# %% [markdown]
# ## Which runs meet which assumptions
#
# The figures of the paper train with cross-entropy, which no theorem of the paper covers; the controls
# `theorem1`, `theorem2` and `theorem3` are the runs that meet the assumptions. "m >> d" is read as ten times.

# %%
card = cards.hypothesis_card(profile_cells(profile))
figures.save_table(card.reset_index(), "hypotheses", profile)

# %% [markdown]
# ## The story, told with its verdicts
#
# **Width (the good).** The paper's picture is a rise, a peak, a fall and a constant. The peak is asked for
# under He (E06), under LeCun (E11) and NTK (E19); its place in depth (T08), the constant at the end (T09), and
# the comparison with earlier bounds (T15) go with it.

# %%
pandas.set_option("display.max_colwidth", None)
columns = ["id", "claim", "verdict", "readings", "n"]
story = ledger.set_index("id", drop=False)
story.loc[["E06", "E11", "E19", "T08", "T09", "T15"], columns].reset_index(drop=True)

# %% [markdown]
# **Depth (the bad) and initialisation (the ugly).** He and NTK should suffer from depth (E09, E21), LeCun
# should gain (E10) and be harder to train (T17), a gain above 1 should explode (T16); the conclusion adds a
# turn (E18).

# %%
story.loc[["E09", "E10", "E21", "T17", "T16", "E18", "T05"], columns].reset_index(drop=True)

# %% [markdown]
# **Lazy and non-lazy.** What $\kappa$ does (E01 to E05, E16, E17), how the non-lazy networks fare (E07, E08,
# E13, E14), and Theorems 2 and 3 on runs that meet their assumptions (T11, T12, E20).

# %%
lazy = ["E01", "E02", "E03", "E04", "E05", "E16", "E17", "E07", "E08", "E13", "E14", "T11", "T12", "E20"]
story.loc[lazy, columns].reset_index(drop=True)

# %% [markdown]
# **The proofs.** Lemmas 1, 2, 3 and 5 are checked by simulation; Theorem 1's two terms apart (T04, T06), and
# as a bound after and during training (T07, T18); Appendix D of the workshop version as printed (T13, T14).
# The NeurIPS supplement was not at hand and may differ.

# %%
proofs = ["T01", "T02", "T03", "T10", "T04", "T06", "T07", "T18", "T13", "T14"]
story.loc[proofs, columns].reset_index(drop=True)

# %% [markdown]
# ## The ledger in full

# %%
Markdown(claims.to_markdown(ledger))
