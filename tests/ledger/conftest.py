"""What the tests of the ledger share."""

import functools

import pytest

from robustkit.ledger import verdicts


@pytest.fixture(autouse=True, scope="session")
def grids_made_once():
    """The grid behind a claim is the same in every ledger, and takes half of its time."""
    made = verdicts.cells_of
    whole = functools.cache(made)
    with pytest.MonkeyPatch.context() as here:
        here.setattr(verdicts, "cells_of", lambda *words, **choices: (made if choices else whole)(*words, **choices))
        yield
