"""The command line: what it refuses, what it says, and with which exit status it ends."""

import re
import signal
import warnings

import pytest

from robustkit import profiles
from robustkit.__main__ import main
from robustkit.files import results_folder
from robustkit.profiles import FIGURES
from robustkit.sweep import store, workers

SMALL = ["--widths", "16", "--seeds", "0", "--depths", "2"]  # 29 trainings


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """The command takes over SIGTERM, which here outlives it."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(autouse=True)
def one_epoch(monkeypatch):
    """The smoke profile, made short."""
    monkeypatch.setitem(profiles.SETTINGS, "smoke", {"dataset": "digits", "epochs": 1, "points": 16})


def call(*arguments):
    """Exit status, as a shell sees it."""
    try:
        return main(list(arguments))
    except SystemExit as leaving:
        return leaving.code


def test_a_plan_says_what_is_done_and_what_the_rest_costs(capsys):
    assert call("plan", "smoke", *SMALL, "--device", "cpu", "--workers", "2") == 0
    said = capsys.readouterr().out
    assert "0 of 29 trainings done, 29 missing" in said
    # 2 + 4 operations a weight and point. 19 nets of 16 (64 + 10) weights, 1437 points, one epoch; with one output,
    # 400 epochs: nine on 8, 16 and 32 points, one on 1437.
    scalar = 16 * 65 * 400 * (3 * (8 + 16 + 32) + 1437)
    assert f"operations: {6 * (19 * 16 * 74 * 1437 + scalar):.2e}" in said
    assert re.search(r"memory of the largest: 0\.\d\d GiB \(width 16, depth 2\)", said)
    assert re.search(r"time on cpu with 2 worker\(s\): about \d+ s", said)
    assert not results_folder().exists()


def test_run_status_and_plan_agree_on_what_is_there(capsys):
    def table():
        assert call("status", "smoke", *SMALL) == 0
        header, *lines = capsys.readouterr().out.splitlines()
        assert header.split() == ["figure", "done", "diverged", "failed", "running", "missing"]
        return {line.split()[0]: tuple(map(int, line.split()[1:])) for line in lines}

    empty = table()
    assert list(empty) == [*FIGURES, "all"]
    assert empty["all"] == (0, 0, 0, 0, 29)
    assert (empty["N2"], empty["N4b"], empty["W7"]) == ((0, 0, 0, 0, 1), (0, 0, 0, 0, 2), (0, 0, 0, 0, 4))
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--dry-run") == 0
    assert "0 of 29 trainings done, 29 missing" in capsys.readouterr().out
    assert not results_folder().exists()
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 0
    assert "profile smoke: 29 of 29 trainings done" in capsys.readouterr().out
    full = table()
    assert (full["N2"], full["N4b"], full["W7"]) == ((1, 0, 0, 0, 0), (2, 0, 0, 0, 0), (4, 0, 0, 0, 0))
    assert call("plan", "smoke", *SMALL, "--device", "cpu") == 0
    assert "29 of 29 trainings done, 0 missing" in capsys.readouterr().out


def test_a_training_that_fails_or_diverges_is_listed_with_its_reason(capsys, monkeypatch):
    monkeypatch.setitem(profiles.SETTINGS["smoke"], "lr", 1e30)
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 0
    said = capsys.readouterr().out
    assert re.search(r"diverged: he, depth 2, width 16, seed 0: the training loss is (nan|inf)", said)

    def fail(cell, *_):
        raise RuntimeError("no luck today")

    with monkeypatch.context() as broken:
        broken.setattr(workers, "measure_group", fail)
        broken.setitem(profiles.SETTINGS["smoke"], "lr", 0.01)
        broken.setattr(profiles, "CONTROLS", {})  # some have a rate of their own, and are done
        assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 1
        said = capsys.readouterr().out
        assert "profile smoke: 0 of 9 trainings done" in said
        assert "failed: he, depth 2, width 16, seed 0: RuntimeError: no luck today" in said


def test_a_run_that_is_out_of_time_says_how_far_it_came(capsys):
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1", "--minutes", "1e-9") == 0
    assert "profile smoke: 0 of 29 trainings done" in capsys.readouterr().out


def test_a_damaged_row_is_named_in_one_line(capsys):
    store.local_path().parent.mkdir(parents=True)
    store.local_path().write_text('{"key": "torn')
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert call("status", "smoke", *SMALL) == 0
    said = capsys.readouterr().err
    assert said == f"warning: {store.local_path()}: 1 damaged row(s) left out, at line 1\n"


def test_a_results_folder_that_cannot_be_written_is_refused(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROBUSTKIT_RESULTS", str(tmp_path / "file" / "results"))
    assert call("run", "smoke", *SMALL, "--device", "cpu") == 2
    assert str(tmp_path / "file" / "results") in capsys.readouterr().err


def test_rows_that_contradict_each_other_end_a_command_with_a_sentence(capsys):
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 0
    row = store.read_rows(store.local_path())[0]
    store.append(row | {"measures": row["measures"] | {"stability": 123.0}}, store.SHIPPED)
    capsys.readouterr()
    assert call("run", "smoke", *SMALL, "--device", "cpu") == 1
    said = capsys.readouterr().err
    assert said.startswith("robustkit: two rows of one cell") and "123.0" in said


def test_one_claim_can_be_run_alone_with_so_many_seeds(capsys):
    assert call("run", "smoke", "--claim", "E02", "--seeds", "3", "--widths", "4", "--device", "cpu") == 0
    assert "claim E02: 9 of 9 trainings done" in capsys.readouterr().out  # three scalings, three seeds
    assert {row["cell"]["seed"] for row in store.load_rows()} == {0, 1, 2}
