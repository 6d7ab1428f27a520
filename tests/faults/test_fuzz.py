"""2 000 damaged, forged and random inputs; `python benchmarks/fuzz.py` feeds 100 000 of the same kinds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fuzz  # noqa: E402

INPUTS = 2000
MEBIBYTES = 300  # a third of what the bombs among the inputs unfold to


@pytest.mark.guard(
    22, "robustkit/datasets.py", "np.load(path, allow_pickle=False)", "np.load(path, allow_pickle=True)"
)
@pytest.mark.guard(22, "robustkit/data.py", "packed.read(sum(sizes.values()) + OTHER_BYTES)", "packed.read()")
def test_every_input_is_read_as_written_or_refused_as_documented_in_little_memory():
    results = list(fuzz.feed_all(INPUTS))
    assert sum(result.inputs for result in results) == INPUTS
    for result in results:
        assert result.problems == []
        assert result.refused > 0 and result.equal > 0
        assert result.refused + result.equal == result.inputs
        assert result.mebibytes < MEBIBYTES, result
