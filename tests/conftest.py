"""What every test shares: one CPU thread a process, checked shapes, folders that are not the user's."""

import fcntl
import importlib.util
import json
import os
import signal

# Before torch is imported: the tests run side by side (pytest -n), and what they start inherits this.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

# A shell lets what it starts in the background ignore Ctrl-C, and so would all that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

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


@pytest.fixture(scope="session")
def made_once(request, tmp_path_factory):
    """A function that fills a folder once for all workers of pytest-xdist: (folder, what `make(folder)` returned)."""
    root = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        root = root.parent

    def made(name, make):
        folder, answer = root / name, root / f"{name}.json"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second waits here
            if not answer.exists():
                folder.mkdir()
                answer.write_text(json.dumps(make(folder)))
        return folder, json.loads(answer.read_text())

    return made


@pytest.fixture
def one_thread():
    """The bits compared here would differ between numbers of threads."""
    assert torch.get_num_threads() == 1
    yield
    torch.set_num_threads(1)


@pytest.fixture
def two_threads():
    """As a user's process has, so that it shows what robustkit itself does about threads."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


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
