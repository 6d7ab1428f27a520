"""The command line: what it refuses, what it says, and with which exit status it ends."""

import os
import re
import signal
import subprocess
import sys
import time
import warnings

import pytest

import robustkit.__main__ as command_line
from robustkit import InputError, profiles
from robustkit.__main__ import main
from robustkit.files import ROOT, results_folder
from robustkit.sweep import store, workers

SMALL = ["--widths", "16", "--seeds", "0", "--depths", "2"]  # 32 runs


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """The command takes over SIGTERM, and its test SIGINT, which here outlive it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


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
    said, aside = capsys.readouterr()
    assert "0 of 32 runs done, 32 missing" in said
    assert aside == "measuring how fast cpu trains each shape of network (1) ...\n"
    # 2 + 4 operations a weight and point. 30 nets of 16 (64 + 10) weights, eight of them for further measures, 1437
    # points, one epoch; with one output, 400 epochs: nine on 8, 16 and 32 points, one on 1437.
    scalar = 16 * 65 * 400 * (3 * (8 + 16 + 32) + 1437)
    assert f"operations: {6 * (30 * 16 * 74 * 1437 + scalar):.2e}" in said
    assert re.search(r"memory of the largest: 0\.\d\d GiB \(width 16, depth 2\)", said)
    assert re.search(r"time on cpu with 2 worker\(s\): about \d+ s", said)
    assert not results_folder().exists()


@pytest.mark.parametrize("words", [["--only", "02", "--only", "05"], []])
def test_a_plan_names_the_runs_that_are_repeated_for_further_measures(words, capsys):
    assert call("plan", "smoke", *SMALL, "--device", "cpu", *words) == 0
    said = capsys.readouterr().out
    assert "jacobian_change: 0 of 1 runs repeated, 1 missing" in said
    assert "attack: 0 of 2 runs repeated, 2 missing" in said  # He and non-lazy
    assert call("plan", "smoke", *SMALL, "--device", "cpu", "--only", "03") == 0
    assert "repeated" not in capsys.readouterr().out


def test_parameters_of_the_notebooks_restrict_what_is_trained(capsys):
    """Only what was drawn was restricted: ./run_all.sh smoke --only 02 -p widths=[16] trained every width."""
    words = ["--only", "02", "-p", "widths=[16]", "-p", "seeds=[0]", "-p", "depths=[2]", "--device", "cpu"]
    chosen = command_line._parser().parse_args(["reproduce", "smoke", *words])
    command_line._check(chosen)
    chosen.profile = "smoke"
    jobs = command_line._jobs(chosen)
    assert {(c.width, c.seed, c.depth) for cells in jobs.values() for c in cells} == {(16, 0, 2)}
    assert list(jobs) == [None, "jacobian_change"]


def test_run_status_and_plan_agree_on_what_is_there(capsys):
    def table():
        assert call("status", "smoke", *SMALL) == 0
        header, *lines = capsys.readouterr().out.splitlines()
        assert header.split() == ["figure", "done", "diverged", "failed", "running", "missing", "shared"]
        shared.update({line.split()[0]: " ".join(line.split()[6:]) for line in lines})
        counts = {line.split()[0]: tuple(map(int, line.split()[1:6])) for line in lines}
        *figures, total = counts.values()
        assert total == tuple(map(sum, zip(*figures, strict=True)))
        return counts

    shared = {}
    empty = table()
    assert list(empty) == [*profiles.profile_names("smoke"), "all"]
    assert empty["all"] == (0, 0, 0, 0, 32)
    assert (empty["N2"], empty["N4b"], empty["W7"]) == ((0, 0, 0, 0, 1), (0, 0, 0, 0, 0), (0, 0, 0, 0, 3))
    assert (shared["N2"], shared["N4b"], shared["W7"]) == ("", "1 with N2, 1 with N3", "1 with N3")
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--dry-run") == 0
    assert "0 of 32 runs done, 32 missing" in capsys.readouterr().out
    assert not results_folder().exists()
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 0
    said = capsys.readouterr().out
    assert "profile smoke: 32 of 32 runs done" in said and "attack: 2 of 2 runs repeated" in said
    full = table()
    assert full == {name: (n, 0, 0, 0, 0) for name, (*_, n) in empty.items()}
    assert call("plan", "smoke", *SMALL, "--device", "cpu") == 0
    assert "32 of 32 runs done, 0 missing" in capsys.readouterr().out


def test_a_run_that_fails_or_diverges_is_listed_with_its_reason(capsys, monkeypatch):
    monkeypatch.setitem(profiles.SETTINGS["smoke"], "lr", 1e30)
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 0
    said = capsys.readouterr().out
    assert re.search(r"diverged: He, depth 2, width 16, seed 0: the training loss is (nan|inf)", said)

    def fail(cell, *_):
        raise RuntimeError("no luck today")

    with monkeypatch.context() as broken:
        broken.setattr(workers, "measure_group", fail)
        broken.setitem(profiles.SETTINGS["smoke"], "lr", 0.01)
        broken.setattr(profiles, "CONTROLS", {})  # some have a learning rate of their own, and are done
        broken.setattr(profiles, "YOUR_TURN", [])
        broken.setattr(command_line, "REPEATED", {})
        assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 1
        said = capsys.readouterr().out
        assert "profile smoke: 0 of 9 runs done" in said
        assert "failed: He, depth 2, width 16, seed 0: RuntimeError: no luck today" in said


def test_a_run_that_is_out_of_time_says_how_far_it_came(capsys):
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1", "--minutes", "1e-9") == 0
    assert "time is up, 32 left; profile smoke: 0 of 32 runs done" in capsys.readouterr().out
    choices = ("run", "smoke", "--widths", "16", "--seeds", "0", "--depths", "2", "--only", "5", "--device", "cpu")
    assert call(*choices, "--minutes", "60") == 0
    assert "time is up" not in capsys.readouterr().out


def test_a_damaged_row_is_named_in_one_line(capsys):
    store.local_path().parent.mkdir(parents=True)
    store.local_path().write_text('{"key": "torn')
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert call("status", "smoke", *SMALL) == 0
    said = capsys.readouterr().err
    why = "at line 1 (the first: it is torn or altered: its CRC does not match)"
    assert said == f"warning: {store.local_path()}: 1 damaged row(s) left out, {why}\n"


def test_a_results_folder_that_cannot_be_written_is_refused(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROBUSTKIT_RESULTS", str(tmp_path / "file" / "results"))
    assert call("run", "smoke", *SMALL, "--device", "cpu") == 2
    assert str(tmp_path / "file" / "results") in capsys.readouterr().err


def test_rows_that_contradict_each_other_are_named_and_end_no_command(capsys):
    assert call("run", "smoke", *SMALL, "--device", "cpu", "--workers", "1") == 0
    row = store.read_rows(store.local_path())[0]
    store.append(row | {"measures": row["measures"] | {"stability": 123.0}}, store.SHIPPED)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert call("run", "smoke", *SMALL, "--device", "cpu") == 0
    said = capsys.readouterr().err
    assert "123.0" in said and str(store.SHIPPED) in said and str(store.local_path()) in said


def test_one_claim_can_be_run_alone_with_so_many_seeds(capsys):
    assert call("run", "smoke", "--claim", "e02", "--seeds", "3", "--widths", "4", "--device", "cpu") == 0
    assert "claim E02: 9 of 9 runs done" in capsys.readouterr().out  # three scalings, three seeds
    assert {row["cell"]["seed"] for row in store.load_rows()} == {0, 1, 2}


@pytest.mark.parametrize("number", ["2", "02"])
def test_a_notebook_is_named_by_its_number_with_or_without_a_nought(number, capsys, steps):
    """--only 2 was refused, and by some commands alone."""
    choices = (*SMALL, "--only", number)
    for command, *words in (("plan", "--device", "cpu"), ("status",)):
        assert call(command, "smoke", *choices, *words) == 0
    plan, *lines = capsys.readouterr().out.splitlines()
    assert "0 of 14 runs done" in plan
    assert [line.split()[0] for line in lines if re.search(r" \d+ +\d+ ", line)] == [*profiles.NOTEBOOKS["02"], "all"]
    assert call("reproduce", "smoke", "--only", number) == 0
    assert {chosen.only[0] for _, _, chosen in steps[0]} == {"02"}


def test_a_number_that_no_notebook_has_is_refused(capsys):
    assert call("plan", "smoke", "--only", "9") == 2
    assert "--only is '09', but must be one of 00, 01" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- several profiles


@pytest.fixture
def steps(monkeypatch):
    """Training and report, played: a list of what was asked for, and what each is to do instead of nothing."""
    done, answers = [], {}

    def play(name):
        def step(chosen):
            done.append((name, chosen.profile, chosen))
            answer = answers.get((name, chosen.profile), 0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return step

    for name in ("run", "report"):
        monkeypatch.setattr(command_line, name, play(name))
    return done, answers


def named(done):
    return [(name, profile) for name, profile, _ in done]


SMOKE, LAPTOP = [("run", "smoke"), ("report", "smoke")], [("run", "laptop"), ("report", "laptop")]
SHIPPED = [("report", "shipped")]


def test_profiles_run_in_the_order_given_and_shipped_trains_nothing(steps):
    assert call("reproduce", "shipped", "laptop", "smoke") == 0
    assert named(steps[0]) == [*SHIPPED, *LAPTOP, *SMOKE]


def test_without_a_profile_it_is_smoke_and_then_shipped_once_rows_are_shipped(steps):
    assert call("reproduce") == 0
    assert named(steps[0]) == SMOKE
    store.SHIPPED.touch()
    assert call("reproduce", "--workers", "2") == 0
    assert named(steps[0]) == [*SMOKE, *SMOKE, *SHIPPED]


def test_training_and_report_are_given_the_options(steps):
    arguments = "--workers 2 --only 02 smoke laptop --device=cuda:1 --minutes 0.5 --dask tcp://a:1 -p widths=[16,32]"
    assert call("reproduce", *arguments.split(), "--only=05", "-p", "device=a=b") == 0
    assert named(steps[0]) == [*SMOKE, *LAPTOP]
    for _, _, chosen in steps[0]:
        assert (chosen.workers, chosen.device, chosen.minutes, chosen.dask) == (2, "cuda:1", 0.5, "tcp://a:1")
        assert chosen.only == ["02", "05"] and chosen.parameters == {"widths": [16, 32], "device": "a=b"}
    assert call("reproduce", "smoke") == 0
    assert steps[0][-1][2].only == [] and steps[0][-1][2].parameters == {}


@pytest.mark.parametrize("words", [["smok"], ["smoke", "-p", "widht=[16]"], ["--only", "99"], ["--workers", "0"]])
def test_a_wrong_word_ends_it_before_any_training(steps, words):
    assert call("reproduce", "shipped", *words) == 2
    assert steps[0] == []


def test_checking_the_words_runs_nothing_and_says_nothing(steps, capsys):
    assert call("reproduce", "--check", "smoke", "-p", "widths=[16]") == 0
    assert steps[0] == [] and capsys.readouterr() == ("", "")


def test_after_a_failure_the_rest_goes_on_and_the_end_names_what_failed(steps, capsys):
    done, answers = steps
    answers |= {("run", "smoke"): 1, ("report", "laptop"): OSError("no space"), ("run", "laptop"): KeyError("a bug")}
    assert call("reproduce", "smoke", "laptop", "shipped") == 1
    assert named(done) == [*SMOKE, *LAPTOP, *SHIPPED]
    said = capsys.readouterr().err
    assert "robustkit: no space" in said and "KeyError: 'a bug'" in said
    listed = ["smoke: training", "laptop: training", "laptop: notebooks and report"]
    assert said.splitlines()[-3:] == [f"failed: {step}" for step in listed]


@pytest.mark.parametrize(
    ("raised", "status"), [(InputError("device is 'gpu'"), 2), (KeyboardInterrupt(), 130), (SystemExit(143), 143)]
)
def test_bad_input_and_interruption_end_it_at_once(steps, raised, status):
    done, answers = steps
    answers["run", "smoke"] = raised
    assert call("reproduce", "smoke", "laptop") == status
    assert named(done) == SMOKE[:1]


def test_help_and_refusals_load_no_package():
    code = (
        "import sys; from robustkit.__main__ import main; print(main(['reproduce', 'smok']), 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "2 False\n", done.stderr


# ---------------------------------------------------------------------------------------------- ruff and the tests


@pytest.fixture
def tools(monkeypatch):
    """ruff and pytest, played: what was called, and statuses other than 0."""
    done, statuses = [], {}

    def call_tool(command, cwd):
        assert command[:2] == [sys.executable, "-m"] and cwd == ROOT
        done.append(" ".join(command[2:]))
        return statuses.get(command[2], 0)

    monkeypatch.setattr(command_line.subprocess, "call", call_tool)
    return done, statuses


def test_the_command_test_runs_ruff_and_then_pytest_with_the_words_given(tools):
    assert call("test", "-k", "a or b", "--help", "-x") == 0
    assert tools[0] == [
        "ruff check .",
        "ruff format --check .",
        "pytest -q -n auto --maxprocesses 8 --dist worksteal -k a or b --help -x",
    ]


@pytest.mark.parametrize("failing", ["ruff", "pytest"])
def test_it_fails_if_any_of_them_fails_and_still_runs_them_all(tools, failing, capsys):
    tools[1][failing] = 3
    assert call("test") == 1
    assert len(tools[0]) == 3
    assert f"failed: {failing} (exit status 3)" in capsys.readouterr().err


def test_ctrl_c_is_left_to_pytest_and_ends_the_command_with_130(tmp_path):
    (tmp_path / "test_waits.py").write_text(
        "import pathlib, time\ndef test():\n    pathlib.Path('started').touch()\n    time.sleep(60)\n"
    )
    (tmp_path / "pytest.ini").touch()
    code = (
        "import sys; from robustkit import __main__ as main; from pathlib import Path; main.ROOT = Path(sys.argv[1])"
    )
    command = [sys.executable, "-c", f"{code}; sys.exit(main.main(['test', '-n0']))", str(tmp_path)]
    options = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), "start_new_session": True}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    give_up = time.monotonic() + 300
    while not (tmp_path / "started").exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "KeyboardInterrupt" in said and "no tests ran" in said
