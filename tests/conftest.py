"""What every test shares: checked shapes, folders that are not the user's, one CPU thread where bits are compared."""

import importlib.util

import numpy as np
import pytest
import torch

# Before robustkit is imported: from here on the shapes in the signatures of these modules are checked at each call.
SHAPES_CHECKED = importlib.util.find_spec("beartype") is not None
if SHAPES_CHECKED:
    from jaxtyping import install_import_hook

    install_import_hook(
        ["robustkit.data", "robustkit.networks", "robustkit.training.loop", "robustkit.training.ensemble"],
        "beartype.beartype",
    )

from robustkit.sweep import store  # noqa: E402


def _redirect(monkeypatch, folder):
    monkeypatch.setenv("ROBUSTKIT_RESULTS", str(folder / "results"))
    monkeypatch.setenv("ROBUSTKIT_FIGURES", str(folder / "figures"))
    monkeypatch.setattr(store, "SHIPPED", folder / "shipped.jsonl")


@pytest.fixture(scope="session", autouse=True)
def session_folders(tmp_path_factory):
    """Fixtures that outlive one test do not touch the user's results either."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _redirect(monkeypatch, tmp_path_factory.mktemp("session"))
        yield


@pytest.fixture(autouse=True)
def own_folders(session_folders, monkeypatch, tmp_path_factory):
    """Each test starts from an empty store of its own and returns where it lies."""
    folder = tmp_path_factory.mktemp("own")
    _redirect(monkeypatch, folder)
    return folder


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def poisoned_seeds():
    """A function that sets every global seed; the state of before comes back after the test."""
    state, torch_state = np.random.get_state(), torch.get_rng_state()

    def poison(seed):
        np.random.seed(seed)
        torch.manual_seed(seed)

    yield poison
    np.random.set_state(state)
    torch.set_rng_state(torch_state)


@pytest.fixture
def write_npz(tmp_path):
    """Write a small dataset of 20 training and 8 test points in three classes; keywords replace its arrays."""

    def write(name="points.npz", *, save=np.savez, without=(), **arrays):
        generator = np.random.default_rng(0)
        plain = {
            "x_train": generator.standard_normal((20, 3)).astype(np.float32),
            "y_train": np.arange(20) % 3,
            "x_test": generator.standard_normal((8, 3)).astype(np.float32),
            "y_test": np.arange(8) % 3,
        }
        path = tmp_path / name
        save(path, **{k: v for k, v in (plain | arrays).items() if k not in without})
        return str(path)

    return write
