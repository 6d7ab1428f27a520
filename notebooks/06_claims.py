# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. The ledger: what holds so far
#
# Each row is a statement of the paper that a run can decide, in the paper's words, with a criterion fixed
# before the shipped runs (but for three rules, named below) and a verdict that is computed from the rows.
# *Missing* names the trainings that would decide a row; *inconclusive* says that the interval allows both
# answers; *outside hypotheses* says what a run does not meet. None of them is a verdict on the authors: their
# code was not to be found, and the text leaves choices open, which [the README](../README.md) lists. A column
# is left for their response.
#
# This is a first version: the headline rows that the trained networks can decide.

# %% tags=["parameters"]
profile = "shipped"  # smoke, laptop, paper: train what is missing; shipped: judge the committed rows
device = "auto"  # auto, cpu, cuda
seeds = None  # a list such as [0, 1]; None takes the profile's
widths = None  # a list such as [16, 64]; None takes the profile's

# %%
from IPython.display import Markdown

import robustkit as rk
from robustkit import claims

# %%
rows = rk.collect("all", profile, device=device, seeds=seeds, widths=widths)
ledger = claims.save(claims.ledger(rows), profile)
print(f"{len(rows)} trainings; {len(rows.attrs['missing'])} of the grid are missing")

# %% [markdown]
# ## The ledger

# %%
Markdown(claims.to_markdown(ledger))
