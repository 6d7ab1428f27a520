"""Checkpoints: what was saved comes back to the bit. Stops and damage are in faults/test_resumes.py."""

import copy
import subprocess
import sys

import pytest
import torch

from robustkit.cell import Cell
from robustkit.data import load_dataset
from robustkit.training import checkpoint
from robustkit.training.checkpoint import Saved
from robustkit.training.loop import Loop

pytestmark = pytest.mark.usefixtures("one_thread")

CELL = Cell(
    model="resnet", width=4, depth=8, augment="crop_flip", scaling="standard", n_train=300, batch_size=64, epochs=6,
    lr=0.1, momentum=0.9, weight_decay=1e-4, points=16,
)  # fmt: skip
TENSORS = {"model.weight": torch.arange(12.0).reshape(3, 4), "generator.order": torch.Generator().get_state()}
NAME = {"name": Saved(0, TENSORS, {})}


@pytest.fixture
def saved():
    """Two checkpoints of one training, at steps 5 and 10."""
    for step in (5, 10):
        checkpoint.save("name", Saved(step, TENSORS, {"traces": [{"loss_over_time": [step / 3]}]}), "cpu")
    return checkpoint.paths("name", "cpu")


def test_what_was_saved_comes_back_to_the_bit(saved):
    (found,) = checkpoint.load(NAME, "cpu")
    assert found.step == 10 and found.notes == {"traces": [{"loss_over_time": [10 / 3]}]}
    assert found.state.keys() == TENSORS.keys()
    assert all(torch.equal(found.state[name], value) for name, value in TENSORS.items())
    assert checkpoint.load({"another name": NAME["name"]}, "cpu") is None
    checkpoint.remove("name")
    assert checkpoint.load(NAME, "cpu") is None and not list(saved[0].parent.iterdir())


def test_any_bit_flipped_is_found(saved):
    content = saved[0].read_bytes()
    saved[1].unlink()
    for position in range(0, len(content), max(1, len(content) // 200)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        saved[0].write_bytes(changed)
        with pytest.warns(UserWarning, match="damaged"):
            assert checkpoint.load(NAME, "cpu") is None


def test_another_version_or_device_has_checkpoints_of_its_own(saved, monkeypatch):
    before = {path: path.read_bytes() for path in saved}
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB")
        assert checkpoint.load(NAME, "cuda:1") is None
        checkpoint.save("name", Saved(99, TENSORS, {}), "cuda:1")
        assert checkpoint.load(NAME, "cuda:0")[0].step == 99
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert checkpoint.load(NAME, "cpu") is None
    checkpoint.save("name", Saved(98, TENSORS, {}), "cpu")
    assert {path: path.read_bytes() for path in saved} == before
    checkpoint.remove("name")
    assert list(saved[0].parent.iterdir()) == []


def test_a_damaged_newest_never_replaces_the_sound_one_before(saved):
    saved[0].write_bytes(b"torn")
    checkpoint.save("name", Saved(15, TENSORS, {}), "cpu")
    saved[0].write_bytes(b"torn again")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.load(NAME, "cpu")[0].step == 5


def test_a_full_disk_costs_a_warning_and_not_the_checkpoint_that_is_there(saved):
    """A file may not grow past 600 bytes, as on a disk without room."""
    script = (
        "import resource, signal, warnings, torch; from robustkit.training import checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "checkpoint.save('name', checkpoint.Saved(15, {'model.weight': torch.zeros(999)}, {}), 'cpu')\n"
        "with warnings.catch_warnings(record=True): print(max(checkpoint._steps('name', 'cpu')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "continues without this checkpoint" in done.stderr and "File too large" in done.stderr
    assert done.stdout == "10\n"


def test_weights_that_went_on_are_those_that_never_stopped():
    data = load_dataset("digits", scaling="standard")
    x, y, kept = data.x_train[:300], data.y_train[:300], []

    def trained(**options):
        nets, steps = Loop([CELL], "cpu", torch.float32), []
        observe = lambda step: [steps.append(step) or True]  # noqa: E731
        nets.train(x, y, evaluate_at=range(31), observe=observe, **options)
        return nets.model.state_dict(), steps

    def save(step, states):
        kept.append(Saved(step, copy.deepcopy(states()[0]), {}))

    whole, steps = trained(save=save)
    assert [one.step for one in kept] == list(range(1, 30)) and steps == list(range(31))
    for one in (kept[0], kept[4], kept[-1]):  # the fifth lies between two epochs
        checkpoint.save("name", one, "cpu")
        again, steps = trained(resume=checkpoint.load({"name": one}, "cpu"))
        assert steps == list(range(one.step, 31))
        assert all(torch.equal(again[name], value) for name, value in whole.items())
