"""A run that is killed or out of time resumes from its checkpoint, and ends with the same bits."""

import itertools
import os
import time
from types import SimpleNamespace

import pytest
import torch
from processes import CONTEXT

from robustkit.cell import Cell
from robustkit.files import results_folder
from robustkit.sweep import store, train_missing
from robustkit.training import checkpoint, measures
from robustkit.training import group as group_module
from robustkit.training.checkpoint import Saved
from robustkit.training.measures import measure_group

pytestmark = pytest.mark.usefixtures("one_thread")

COMMON = {"n_train": 300, "batch_size": 64, "points": 16}  # five steps an epoch
RESNET = {"model": "resnet", "width": 4, "depth": 8, "augment": "crop_flip", "scaling": "standard", "epochs": 3}
RESNET |= {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
GROUPS = {
    "resnet": [Cell(**COMMON, **RESNET)],
    "cnn": [Cell(**COMMON, model="cnn", width=4, depth=4, head="flatten", epochs=3, lr=0.1)],
    # One of them meets its loss on the way, and rests while the others continue.
    "fcn": [
        Cell(**COMMON, width=8, depth=3, seed=seed, lr=0.5, epochs=3, stop_loss=stop)
        for seed, stop in ((0, None), (1, 2.2), (2, None))
    ],
}


@pytest.fixture(params=GROUPS)
def group(request):
    return GROUPS[request.param]


@pytest.fixture
def expected(group):
    return [row["measures"] for row in measure_group(group)]


def run_slowly(folder, cells, step, here):
    """A run that leaves a checkpoint before each step, says when it is at the chosen one, and waits to be killed."""
    os.environ["ROBUSTKIT_RESULTS"], store.SHIPPED = str(folder), folder / "none.jsonl"
    save = checkpoint.save

    def slowly(key, saved, device):
        save(key, saved, device)
        if saved.step == step:
            here.set()
            time.sleep(600)

    checkpoint.save, checkpoint.SECONDS, checkpoint.LONGEST = slowly, 0, 0
    train_missing.run(cells, device="cpu")


@pytest.mark.guard(8, "robustkit/training/loop.py", "start = resume[0].step\n", "start = 0\n")
@pytest.mark.guard(
    8, "robustkit/training/loop.py", "self._states, order_states", "self._states, [o.get_state() for o in orders]"
)
@pytest.mark.guard(8, "robustkit/training/ensemble.py", 'weight.copy_(state[f"weights.{layer}"])', "pass")
@pytest.mark.guard(8, "robustkit/training/loop.py", 'order.set_state(saved.state["generator.order"])', "pass")
def test_a_killed_run_ends_with_the_row_of_one_that_was_not(group, expected):
    folder = checkpoint.paths(group[0].key, "cpu")[0].parent
    for last in (4, 5, 11):  # in the middle of an epoch, between two, and again in the middle
        here = CONTEXT.Event()
        process = CONTEXT.Process(target=run_slowly, args=(results_folder(), group, last, here))
        process.start()
        assert here.wait(timeout=300)
        process.kill()  # of a group, its first checkpoint alone has been written
        process.join()
        assert store.load_rows() == [] and checkpoint.load([group[0].key], "cpu")[0].step == last
    train_missing.run(group, device="cpu")
    assert [row["measures"] for row in store.load_rows()] == expected
    assert list(folder.iterdir()) == []  # nothing is left once the rows are saved


@pytest.mark.guard(
    8, "robustkit/training/group.py", "        if began > self.deadline:\n            raise OutOfTimeError\n", ""
)
def test_a_run_that_is_out_of_time_resumes_where_it_was(group, expected, monkeypatch):
    ticks, lives = itertools.count(), 0
    for module in (group_module, measures):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: next(ticks)))  # a second per look
    while lives < 99:
        lives += 1
        try:
            rows = measure_group(group, deadline=next(ticks) + 6)
            break
        except group_module.OutOfTimeError:
            assert all(saved.step >= lives for saved in checkpoint.load([cell.key for cell in group], "cpu"))
    assert lives > 1 and [row["measures"] for row in rows] == expected


# ------------------------------------------------------------------------------------------------ damaged checkpoints

TENSORS = {"model.weight": torch.arange(12.0).reshape(3, 4), "generator.order": torch.Generator().get_state()}


@pytest.fixture
def saved():
    """Two checkpoints of one run, at steps 5 and 10."""
    for step in (5, 10):
        checkpoint.save("name", Saved(step, TENSORS, {}), "cpu")
    return checkpoint.paths("name", "cpu")


@pytest.mark.guard(
    8,
    "robustkit/training/checkpoint.py",
    "return body if first == FIRST_LINE + hashlib.sha256(body)",
    "return body if 1 or (body)",
)
@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "text"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(saved, damage):
    content = bytearray(saved[0].read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"torn": content[:-9], "flipped": content, "empty": b"", "text": b"<html>no</html>"}
    saved[0].write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match=f"{saved[0].name} is damaged and not used"):
        assert checkpoint.load(["name"], "cpu")[0].step == 5
    saved[1].write_bytes(b"no")
    with pytest.warns(UserWarning, match="damaged") as said:
        assert checkpoint.load(["name"], "cpu") is None
    assert len(said) == 2
    assert saved[0].read_bytes() == damaged[damage]  # nothing is deleted behind the user's back
