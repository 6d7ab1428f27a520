"""Damaged, forged and random inputs to each reader; tests/long/test_fuzz.py feeds 100 000 of the same kinds."""

import pytest
from fuzz import MEBIBYTES, READERS, feed

INPUTS = 1000


@pytest.mark.guard(
    22, "robustkit/datasets.py", "BytesIO(content), allow_pickle=False", "BytesIO(content), allow_pickle=True"
)
@pytest.mark.guard(22, "robustkit/data.py", "packed.read(sum(sizes.values()) + OTHER_BYTES)", "packed.read()")
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_every_input_is_read_as_written_or_refused_as_documented_in_little_memory(reader, tmp_path):
    result = feed(reader, INPUTS, tmp_path)
    assert result.problems == []
    assert result.refused > 0 and result.equal > 0
    assert result.refused + result.equal == result.inputs
    assert result.mebibytes < MEBIBYTES
