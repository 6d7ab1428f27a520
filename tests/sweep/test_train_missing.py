"""Run what is missing: the same table whatever the order, the workers, the failures and the interruptions."""

import dataclasses
import json
import multiprocessing
import re
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy
import pytest
import torch
from processes import CONTEXT

from robustkit.cell import Cell, InputError
from robustkit.profiles import named_cells, profile_cells
from robustkit.sweep import store, train_missing, workers
from robustkit.training.measures import MEASURES


def cell(width=4, seed=0, **fields):
    return Cell(**{"width": width, "depth": 2, "seed": seed, "epochs": 1, "points": 16} | fields)


CELLS = [cell(width, seed) for width in (4, 8) for seed in (0, 1)]


def saved():
    """Measures of each key on disk; fails on a damaged or repeated row."""
    rows = store.read_rows(store.local_path())
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row["measures"] for row in rows}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What CELLS measure, one after another in this process."""
    with pytest.MonkeyPatch.context() as here:
        here.setenv("ROBUSTKIT_RESULTS", str(tmp_path_factory.mktemp("expected")))
        here.setattr(store, "SHIPPED", tmp_path_factory.mktemp("none") / "shipped.jsonl")
        train_missing.run(CELLS, device="cpu")
        return saved()


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*_):
        raise AssertionError("nothing was to be trained")

    monkeypatch.setattr(workers, "measure_safely", refuse)


def fail_at(monkeypatch, chosen, error):
    """Let one cell raise instead of being measured."""
    measure_group = workers.measure_group

    def measure_or_raise(cells, *others):
        if chosen in cells:
            raise error
        return measure_group(cells, *others)

    monkeypatch.setattr(workers, "measure_group", measure_or_raise)


# ---------------------------------------------------------------------------------------------- rows


def test_rows_come_in_the_order_of_the_cells_whatever_the_order_of_training(expected):
    order = [CELLS[3], CELLS[0], CELLS[2], CELLS[1]]
    rows = train_missing.run(order, device="cpu")
    assert list(rows["key"]) == [cell.key for cell in order]
    assert list(rows["width"]) == [8, 4, 8, 4]
    assert (rows["status"] == "ok").all()
    assert rows.attrs["missing"] == []
    assert saved() == expected


def test_a_second_run_trains_nothing_and_leaves_the_file_as_it_is(monkeypatch):
    first = train_missing.run(CELLS[:2], device="cpu")
    before = store.local_path().read_bytes()
    fail_at(monkeypatch, CELLS[0], AssertionError("it was trained again"))
    second = train_missing.run(CELLS[:2], device="cpu")
    assert store.local_path().read_bytes() == before
    assert second.equals(first)


def test_two_workers_give_the_same_bits_as_one_in_another_order_too(monkeypatch, expected):
    # As workers=2 does, but from a server that has torch in memory.
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: CONTEXT)
    rows = train_missing.run(CELLS[::-1], device="cpu", workers=2)
    assert list(rows["key"]) == [cell.key for cell in CELLS[::-1]]
    assert saved() == expected


class InThisProcess(Executor):
    """Runs what it is given at once."""

    def submit(self, call, /, *words, **options):
        future = Future()
        try:
            future.set_result(call(*words, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def test_any_executor_of_processes_will_do_and_is_left_open(expected, two_threads):
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(2, mp_context=CONTEXT) as pool:
        rows = train_missing.run(CELLS, device="cpu", workers=2, executor=pool)
        assert pool.submit(abs, -1).result() == 1
    assert list(rows["key"]) == [cell.key for cell in CELLS]
    assert saved() == expected
    assert torch.get_num_threads() == threads


def test_other_machines_are_told_how_long_they_have_and_not_until_when():
    """Where the clock of a Dask worker was an hour ahead, nothing was trained."""
    given = []

    class Noting(InThisProcess):
        def submit(self, call, /, *words, **options):
            given.append(options["seconds"])
            return super().submit(call, *words, **options)

    rows = train_missing.run(CELLS, device="cpu", executor=Noting(), minutes=60)
    assert list(rows["status"]) == ["ok"] * len(CELLS)
    assert given == sorted(given, reverse=True) and 0 < given[-1] <= given[0] <= 3600


def test_shipped_rows_are_not_trained_again(no_training):
    row = {"key": CELLS[0].key, "status": "ok", "cell": dataclasses.asdict(CELLS[0]), "reason": None}
    row |= {"measures": dict.fromkeys(MEASURES) | {"stability": 0.5}, "engine": {}, "versions": {}, "seconds": 1.0}
    store.append(row, store.SHIPPED)
    assert list(train_missing.run(CELLS[:1])["stability"]) == [0.5]
    assert not store.local_path().exists()


# ---------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_that_raises_is_reported_the_others_finish_and_it_is_tried_again(monkeypatch, expected, workers):
    with monkeypatch.context() as broken, InThisProcess() as pool:
        fail_at(broken, CELLS[2], RuntimeError("no luck today"))
        rows = train_missing.run(CELLS, device="cpu", workers=workers, executor=pool if workers > 1 else None)
    assert list(rows["status"]) == ["ok", "ok", "failed", "ok"]
    assert "RuntimeError" in rows["reason"][2] and "no luck today" in rows["reason"][2]
    assert numpy.isnan(rows["stability"][2])
    rows = train_missing.run(CELLS, device="cpu")
    assert list(rows["status"]) == ["ok"] * 4
    with pytest.raises(AssertionError):
        saved()  # the failed row stays in the file, and is never read again
    assert {row["key"]: row["measures"] for row in store.load_rows()} == expected


def test_a_diverged_cell_is_kept_without_a_number_and_not_tried_again(monkeypatch):
    wild = cell(16, depth=4, lr=1e6)
    rows = train_missing.run([wild, CELLS[0]], device="cpu")
    assert list(rows["status"]) == ["diverged", "ok"]
    assert "loss is" in rows["reason"][0]
    assert numpy.isnan(rows["stability"][0]) and numpy.isnan(rows["train_loss"][0])
    content = store.local_path().read_text()
    for line in content.splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in the file"))
    fail_at(monkeypatch, wild, AssertionError("it was trained again"))
    train_missing.run([wild, CELLS[0]], device="cpu")
    assert store.local_path().read_text() == content


@pytest.mark.parametrize(
    ("cells", "options", "words"),
    [
        ([], {}, "cells is empty"),
        ([CELLS[0], CELLS[1], CELLS[0]], {}, "twice"),
        (CELLS, {"workers": 0}, "workers is 0"),
        (CELLS, {"workers": 1.5}, "workers is 1.5"),
        (CELLS, {"workers": "two"}, "workers is 'two'"),
        (CELLS, {"minutes": 0}, "minutes is 0"),
        (CELLS, {"minutes": float("nan")}, "minutes is nan"),
        (CELLS, {"device": "gpu7"}, "device is 'gpu7'"),
        (CELLS, {"device": "cuda:99"}, "device is 'cuda:99'"),
        (CELLS, {"device": "meta"}, "device is 'meta'"),
        (CELLS, {"device": None}, "device is None"),
        (CELLS, {"executor": ThreadPoolExecutor(1)}, "executor is <.*ThreadPoolExecutor.*one of other processes"),
    ],
)
def test_bad_input_is_refused_before_any_training(no_training, cells, options, words):
    with pytest.raises(InputError, match=words):
        train_missing.run(cells, **options)
    assert not store.local_path().exists()


@pytest.mark.parametrize("place", ["folder", "rows"])
def test_a_results_folder_that_cannot_be_written_is_refused_before_any_training(
    no_training, monkeypatch, tmp_path, place
):
    folder = tmp_path / "taken"
    monkeypatch.setenv("ROBUSTKIT_RESULTS", str(folder))
    if place == "folder":
        folder.write_text("a file in its place")
    else:
        (folder / "rows.jsonl").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be written") as caught:
        train_missing.run(CELLS, device="cpu")
    assert str(folder) in str(caught.value)


# ---------------------------------------------------------------------------------------------- stop and go on


def test_without_time_nothing_is_saved_and_the_next_run_goes_on(expected):
    rows = train_missing.run(CELLS, device="cpu", minutes=1e-9)
    assert len(rows) == 0
    assert rows.attrs["missing"] == CELLS
    assert saved() == {}
    assert len(train_missing.run(CELLS, device="cpu", minutes=60)) == 4
    assert saved() == expected


def test_a_training_that_does_not_fit_the_minutes_is_dropped_as_a_whole():
    long = cell(64, epochs=3000)
    rows = train_missing.run([long, CELLS[0]], device="cpu", minutes=1 / 60)
    assert long in rows.attrs["missing"]
    assert set(saved()) <= {CELLS[0].key}


def test_an_interrupt_keeps_what_is_finished(monkeypatch, expected):
    with monkeypatch.context() as interrupted:
        fail_at(interrupted, CELLS[2], KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train_missing.run(CELLS, device="cpu")
    before = store.local_path().read_bytes()
    assert saved() == {cell.key: expected[cell.key] for cell in CELLS[:2]}
    train_missing.run(CELLS, device="cpu")
    assert store.local_path().read_bytes().startswith(before)
    assert saved() == expected


# ---------------------------------------------------------------------------------------------- frames


def test_a_frame_has_the_public_columns_and_lists_what_is_missing():
    train_missing.run(CELLS[1:3], device="cpu")
    rows = train_missing.frame(CELLS)
    assert list(rows["key"]) == [cell.key for cell in CELLS[1:3]]
    assert rows.attrs["missing"] == [CELLS[0], CELLS[3]]
    public = "stability stability_sem stability_init stability_train lipschitz_mean lipschitz_max train_loss"
    public += " test_loss test_accuracy kappa status key"
    assert {*public.split(), *(field.name for field in dataclasses.fields(Cell))} <= set(rows.columns)
    assert set(rows["schedule"]) == {"1 epochs at 0.001"}
    assert (rows["stability"] > 0).all() and (rows["stability_init"] > 0).all()
    for row in rows.itertuples():
        assert (len(row.kappa_over_time), len(row.stability_over_time)) == (51, 7)
        assert row.stability_over_time[-1] == pytest.approx(row.stability, rel=1e-12)
        assert row.kappa_over_time[0] == 0 and row.kappa_over_time[-1] == row.kappa


def test_no_rows_are_a_frame_too():
    rows = train_missing.frame(CELLS)
    assert len(rows) == 0 and "stability" in rows.columns
    assert rows.attrs["missing"] == CELLS
    assert list(train_missing.load().columns) == list(rows.columns)


def test_collect_trains_a_profile_and_load_returns_all_there_is():
    choices = {"widths": [4], "seeds": [0, 1], "depths": [2], "epochs": 1, "points": 16}
    rows = train_missing.collect("all", "smoke", device="cpu", **choices)
    assert list(rows["key"]) == [made.key for made in profile_cells("smoke", **choices)]
    before = store.local_path().read_bytes()
    lazy = train_missing.collect("N2", "smoke", device="cpu", **choices)
    assert list(lazy["init"]) == ["he", "he"]
    assert store.local_path().read_bytes() == before
    assert sorted(train_missing.load()["key"]) == sorted(rows["key"])


def test_the_shipped_profile_reads_shipped_rows_alone_and_trains_nothing(no_training):
    rows = train_missing.collect("N2", "shipped", widths=[16, 32], seeds=[0])
    assert len(rows) == 0
    assert [(c.width, c.dataset) for c in rows.attrs["missing"]] == [(16, "mnist"), (32, "mnist")]


def test_under_a_report_nothing_is_trained_and_what_is_missing_is_listed(no_training, monkeypatch):
    """The notebooks of a report trained what the store lacked, two at a time, past --minutes."""
    store_before = store.local_path().exists()
    monkeypatch.setenv("ROBUSTKIT_STATIC", "1")
    for figure in ("N2", "jacobian_change", "all"):
        rows = train_missing.collect(figure, "smoke", device="cuda:9", widths=[4], seeds=[0])
        assert len(rows) == 0 and rows.attrs["missing"] == named_cells(figure, "smoke", widths=[4], seeds=[0])
    assert len(train_missing.run(CELLS)) == len(train_missing.further(CELLS, "attack")) == 0
    assert store.local_path().exists() == store_before is False


def test_the_cpu_has_one_name():
    assert train_missing.resolve_device("cpu") == train_missing.resolve_device("cpu:0") == "cpu"


# ------------------------------------------------------------------------------------------------ what is said


def said_of(capsys, cells, **options):
    train_missing.run(cells, device="cpu", **options)
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]


def test_a_line_names_what_differs_between_the_runs_and_nothing_else(capsys):
    """Two runs that differed in schedule, scaling or stop were told apart by nothing."""
    others = [{}, {"scaling": "unit"}, {"epochs": 2}, {"stop_loss": 1.5}, {"model": "cnn", "head": "pooling"}]
    lines = said_of(capsys, [cell(**fields) for fields in others])
    for words in ("He, depth 2, width 4, seed 0, raw", "unit", "2 epochs at 0.001", "to loss 1.5", "CNN, pooling"):
        assert sum(words in line for line in lines) in (1, 4), (words, lines)
    assert len(lines) == 5 and not any("digits" in line or "cross" in line or "points" in line for line in lines)


def test_time_left_is_in_minutes_and_not_said_before_a_tenth_is_done(capsys):
    """It was said in seconds, after the first and smallest of the runs."""
    first, *_, before_last, last = said_of(capsys, [cell(4, epochs=0.1), *(cell(4, seed) for seed in range(20))])
    assert "left" not in first and "left" in before_last and last.endswith("0 min left)")
    assert re.search(r", \d+ min left\)$", before_last)


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        ([(0, 0), (60, 9)], ""),
        ([(0, 0), (60, 10)], "9 min left"),
        ([(0, 0), (60, 20), (600, 25)], "2 h 15 min left"),  # 540 s for the last 5: the runs to come are as slow
        ([(0, 0), (600, 25), (601, 25.5)], "30 min left"),
    ],
)
def test_time_left_follows_the_rate_of_late(passed, said):
    assert train_missing._left(passed, 100) == said


def test_a_run_that_failed_has_no_speed(capsys, monkeypatch):
    """It was said to be faster than those that were trained."""
    fail_at(monkeypatch, CELLS[1], RuntimeError("no luck"))
    lines = said_of(capsys, CELLS)
    assert [("network-steps/s" in line) for line in lines] == ["no luck" not in line for line in lines]
    assert sum("no luck" in line for line in lines) == 1
