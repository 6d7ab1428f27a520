"""A run that is killed or out of time resumes from its checkpoint, and ends with the same bits."""

import contextlib
import itertools
import os
import time
import tracemalloc
from types import SimpleNamespace

import pytest
import torch
from processes import CONTEXT

from robustkit.cell import Cell
from robustkit.files import results_folder
from robustkit.sweep import store, train_missing, workers
from robustkit.training import checkpoint, measures
from robustkit.training import group as group_module
from robustkit.training.checkpoint import Saved
from robustkit.training.measures import RunMeasures, measure_group

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


def steps_of(cell):
    return {saved.step for path in checkpoint.paths(cell.key, "cpu") if (saved := checkpoint._usable(path, cell.key))}


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
    workers.died_with = lambda key: False  # again in this process
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
        assert store.load_rows() == [] and max(steps_of(group[0])) == last
    train_missing.run(group, device="cpu")
    assert [row["measures"] for row in store.load_rows()] == expected
    assert list(folder.iterdir()) == []  # nothing is left once the rows are saved


@pytest.mark.guard(
    8, "robustkit/training/group.py", "        if began > self.deadline:\n            raise OutOfTimeError\n", ""
)
def test_a_run_that_is_out_of_time_resumes_where_it_was(group, expected, monkeypatch):
    ticks, lives = itertools.count(), 0
    for module in (group_module, measures):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))  # a second per look
    while lives < 99:
        lives += 1
        try:
            rows = measure_group(group, deadline=next(ticks) + 6)
            break
        except group_module.OutOfTimeError:
            assert all(max(steps_of(cell)) >= lives for cell in group)
    assert lives > 1 and [row["measures"] for row in rows] == expected


# ------------------------------------------------------------------------------------------------ other groups


@pytest.fixture
def begin(monkeypatch):
    """A function that trains cells together and stops once all have their checkpoint of one step."""

    def until(cells, step):
        save = checkpoint.save

        def stop(key, saved, device):
            save(key, saved, device)
            if (key, saved.step) == (cells[-1].key, step):
                raise KeyboardInterrupt

        with monkeypatch.context() as stopping, contextlib.suppress(KeyboardInterrupt):
            stopping.setattr(checkpoint, "save", stop)
            stopping.setattr(checkpoint, "SECONDS", 0)
            stopping.setattr(checkpoint, "LONGEST", 0)
            measure_group(cells)

    return until


@pytest.mark.guard(
    8, "robustkit/sweep/workers.py", "if len(parts := checkpoint.resumable(list(by_key), device)) > 1:", "if 0:"
)
def test_runs_of_other_groups_resume_each_from_its_own_step(begin, monkeypatch):
    """With other workers, seeds or claims after a stop, all checkpoints of the new group were left unused."""
    group, steps, load = GROUPS["fcn"], [], checkpoint.load
    expected = [row["measures"] for row in measure_group(group)]
    begin(group[:1], 12)
    begin(group[1:], 6)

    def note(fresh, device):
        saved = load(fresh, device)
        steps.extend([None] * len(fresh) if saved is None else [one.step for one in saved])
        return saved

    monkeypatch.setattr(checkpoint, "load", note)
    train_missing.run(group, device="cpu")
    assert sorted(steps) == [6, 6, 12]
    assert {row["key"]: row["measures"] for row in store.load_rows()} == {
        cell.key: measures for cell, measures in zip(group, expected, strict=True)
    }


@pytest.mark.guard(8, "robustkit/training/checkpoint.py", "if there > saved.step:", "if False:")
def test_a_later_checkpoint_is_never_replaced_by_an_earlier_one():
    for step in (10, 7, 5):
        checkpoint.save("name", Saved(step, TENSORS, {}), "cpu")
    assert checkpoint.load(NAME, "cpu")[0].step == 10


# ------------------------------------------------------------------------------------------------ not this run's


@pytest.mark.guard(8, "robustkit/training/checkpoint.py", 'if facts["key"] != key:', "if False:")
def test_a_checkpoint_of_another_run_is_named_and_not_used(begin):
    """Its weights were trained on under this name: the test loss was the other run's."""
    own, other = GROUPS["fcn"][:1], GROUPS["fcn"][2:]
    expected = measure_group(own)[0]["measures"]
    begin(other, 12)
    os.replace(checkpoint.paths(other[0].key, "cpu")[0], newest := checkpoint.paths(own[0].key, "cpu")[0])
    with pytest.warns(UserWarning, match=f"{newest.name} is that of another run and not used"):
        (row,) = measure_group(own)
    assert row["measures"] == expected


OTHERS = {
    "names": {"weights.9": torch.zeros(3)},
    "shape": {"weights.0": torch.zeros(8, 3)},
    "dtype": {"weights.0": torch.zeros(8, 64, dtype=torch.float64)},
}


@pytest.mark.guard(
    8, "robustkit/training/checkpoint.py", "if like and (_kinds(state) != _kinds(like.state) or", "if (0 and"
)
@pytest.mark.parametrize("change", OTHERS)
def test_one_of_another_network_is_named_and_the_run_begins_anew(change):
    """An older version of the code wrote it, or a hand: the run failed in each life."""
    own = GROUPS["fcn"][:1]
    expected = measure_group(own)[0]["measures"]
    run = RunMeasures(own, "cpu")
    (state,) = run.nets.first_states()
    checkpoint.save(own[0].key, Saved(3, state | OTHERS[change], run.notes[0] | {"seconds": 1.0}), "cpu")
    with pytest.warns(UserWarning, match="is that of another network and not used"):
        (row,) = measure_group(own)
    assert row["measures"] == expected


@pytest.mark.guard(
    8,
    "robustkit/training/checkpoint.py",
    "except OSError as error:\n        raise Unusable",
    "except ZeroDivisionError as error:\n        raise Unusable",
)
@pytest.mark.parametrize("what", ["a loop of links", "a folder"])
def test_what_cannot_be_read_in_the_place_of_a_checkpoint_is_named_and_ends_nothing(what):
    """A run with a loop of links there failed in each life."""
    (cell,), (newest, _) = GROUPS["fcn"][:1], checkpoint.paths(GROUPS["fcn"][0].key, "cpu")
    newest.parent.mkdir(parents=True)
    newest.symlink_to(newest) if what == "a loop of links" else newest.mkdir()
    with pytest.warns(UserWarning, match=f"{newest.name} is unreadable .* and not used"):
        rows = train_missing.run([cell], device="cpu")
    assert list(rows["status"]) == ["ok"]


@pytest.mark.guard(
    8,
    "robustkit/training/checkpoint.py",
    "write_atomically(fresh, lambda file: _write(file, key, saved))",
    "import io; _write(whole := io.BytesIO(), key, saved); write_atomically(fresh, whole.getvalue())",
)
def test_memory_holds_no_second_copy_of_a_checkpoint():
    """Three copies were made of 8 GB of weights, as bytes."""
    state = {f"weights.{layer}": torch.ones(1 << 20) for layer in range(20)}
    size = sum(value.nbytes for value in state.values())
    for call in (
        lambda: checkpoint.save("name", Saved(5, state, {}), "cpu"),
        lambda: checkpoint.save("name", Saved(6, state, {}), "cpu"),  # beside one that is there
        lambda: checkpoint.load({"name": Saved(0, state, {})}, "cpu"),
    ):
        tracemalloc.start()
        try:
            assert call() or True
            assert tracemalloc.get_traced_memory()[1] < 1.2 * size
        finally:
            tracemalloc.stop()


# ------------------------------------------------------------------------------------------------ the clock


@pytest.mark.guard(
    8,
    "robustkit/training/group.py",
    "began = time.monotonic()\n        if began",
    "began = time.time()\n        if began",
)
@pytest.mark.parametrize("tick", [0.0, -3600.0], ids=["stands still", "runs backwards"])
def test_the_wall_clock_decides_nothing(monkeypatch, tick):
    """Set back by an hour it meant an hour without a checkpoint; standing still, a division by zero."""
    cell, now, saved = GROUPS["fcn"][0], itertools.count(), []
    monkeypatch.setattr(time, "time", lambda: 1e9 + tick * next(now))
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    monkeypatch.setattr(checkpoint, "LONGEST", 0)
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *words: saved.append(words[1].step) or save(*words))
    rows = train_missing.run([cell], device="cpu", minutes=60)
    assert list(rows["status"]) == ["ok"] and 0 <= rows["seconds"][0] < 3600
    assert saved == list(range(1, cell.steps))


# ------------------------------------------------------------------------------------------------ damaged checkpoints

TENSORS = {"model.weight": torch.arange(12.0).reshape(3, 4), "generator.order": torch.Generator().get_state()}
NAME = {"name": Saved(0, TENSORS, {})}


@pytest.fixture
def saved():
    """Two checkpoints of one run, at steps 5 and 10."""
    for step in (5, 10):
        checkpoint.save("name", Saved(step, TENSORS, {}), "cpu")
    return checkpoint.paths("name", "cpu")


@pytest.mark.guard(8, "robustkit/training/checkpoint.py", 'raise UnusableError("damaged")', "pass")
@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "text"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(saved, damage):
    content = bytearray(saved[0].read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"torn": content[:-9], "flipped": content, "empty": b"", "text": b"<html>no</html>"}
    saved[0].write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match=f"{saved[0].name} is damaged and not used"):
        assert checkpoint.load(NAME, "cpu")[0].step == 5
    saved[1].write_bytes(b"no")
    with pytest.warns(UserWarning, match="damaged") as said:
        assert checkpoint.load(NAME, "cpu") is None
    assert len(said) == 2
    assert saved[0].read_bytes() == damaged[damage]  # nothing is deleted behind the user's back
