"""run_all.sh: what it accepts, what it starts in which order, how it ends. Python is played by a small script."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Notes each call in $CALLS and ends with the status that $ANSWERS gives for it (lines of STATUS|FIRST WORDS).
# It has robustkit once a file named "ready" lies beside it, which its pip puts there.
PYTHON = """#!/usr/bin/env bash
bin=$(cd "$(dirname "$0")" && pwd -P)
case "$1 ${2-}" in
  "-c import sys; print(sys.executable)") echo "$bin/python"; exit ;;
  "-c import pip") exit ;;
  "-c "*version_info*) exit "${TOO_OLD-0}" ;;
  "-c "*) test -e "$bin/ready"; exit ;;
  "--version "*) echo "Python 3.9.2"; exit ;;
esac
echo "$*" >>"$CALLS"
while IFS='|' read -r status words; do
  if [[ $words && $* == "$words"* ]]; then
    [[ $status == slow ]] || exit "$status"
    trap 'echo stopped >>"$CALLS"; kill "$!"; exit 1' INT TERM
    sleep 600 &
    echo waiting >>"$CALLS"
    wait
  fi
done <<<"${ANSWERS-}"
case "$*" in
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip"*) touch "$bin/ready" ;;
  "-m robustkit"*) echo "data=${ROBUSTKIT_DATA-} results=${ROBUSTKIT_RESULTS-}" >>"$CALLS.environment" ;;
esac
"""

INSTALL = "-m pip install -q -c constraints.txt -e .[notebooks,test]"
PYTEST = "-m pytest -q -n auto --maxprocesses 8 --dist worksteal"


def run_line(profile):
    return f"-m robustkit run {profile}"


def report_line(profile):
    return f"-m robustkit report {profile}"


class Folder:
    """A copy of the project with a played Python, under a path with a space and a letter outside ASCII."""

    def __init__(self, path):
        self.path = path / "a größer folder"
        self.bin = path / "bin"
        self.log = path / "calls"
        (self.path / "notebooks").mkdir(parents=True)
        (self.path / ".ci").mkdir()
        for name in ("run_all.sh", "pyproject.toml", "constraints.txt", ".ci/run"):
            shutil.copy(ROOT / name, self.path / name)
        for name in ("02_width", "05_cnn_and_resnet"):
            (self.path / "notebooks" / f"{name}.py").touch()
        self.bin.mkdir()
        for name in ("python", "python3"):
            self.write(name, PYTHON)

    def write(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def environment(self, answers=(), **more):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ROBUSTKIT_", "PYTHON", "VIRTUAL_ENV"))}
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        return kept | {"PATH": path, "CALLS": str(self.log), "ANSWERS": "\n".join(answers), **more}

    def call(self, *arguments, answers=(), cwd="/", program="run_all.sh", **more):
        return subprocess.run(
            [self.path / program, *arguments],
            cwd=cwd,
            env=self.environment(answers, **more),
            capture_output=True,
            text=True,
            timeout=300,
        )

    def calls(self):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def bare(tmp_path):
    """No Python on PATH has robustkit."""
    return Folder(tmp_path)


@pytest.fixture
def folder(bare):
    """The Python on PATH has robustkit and all that belongs to it."""
    (bare.bin / "ready").touch()
    return bare


# ---------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["smok"], "profile is 'smok', but must be one of smoke, laptop, paper, shipped, or the word test; did you"),
        (["Shiped"], "did you mean 'shipped'?"),
        (
            ["everything"],
            "profile is 'everything', but must be one of smoke, laptop, paper, shipped, or the word test\n",
        ),
        (["smoke", "test"], "test must come first"),
        (["smoke", "--worker", "2"], "option is '--worker', but must be one of --workers, --device"),
        (["smoke", "-x"], "option is '-x'"),
        (["--workers"], "--workers needs a value"),
        (["--device", "--minutes", "3"], "--device needs a value, but is followed by --minutes"),
        (["--workers", "0"], "--workers is '0', but must be a whole number of at least 1"),
        (["--workers=two"], "--workers is 'two', but"),
        (["--minutes", "-5"], "--minutes is '-5', but must be a number above 0"),
        (["--minutes", "0.0"], "--minutes is '0.0', but"),
        (["--only", "07"], "--only is '07', but must be the number of a file in notebooks/"),
        (["--only", "*"], "--only is '*', but"),
        (["-p", "width"], "-p is 'width', but must be NAME=VALUE"),
        (["-p", "a b=1"], "-p is 'a b=1', but"),
        ([""], "profile is '', but"),
    ],
)
def test_a_command_that_is_not_understood_is_refused_in_a_sentence_before_anything_starts(bare, arguments, sentence):
    done = bare.call(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert bare.calls() == []
    assert not (bare.path / ".venv").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["smoke", "--help"]])
def test_help_names_every_profile_and_option_and_starts_nothing(bare, arguments):
    done = bare.call(*arguments)
    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("smoke", "laptop", "paper", "shipped", "test", "--workers", "--device", "--minutes", "--only", "-p"):
        assert f" {word} " in done.stdout
    assert bare.calls() == []


# ---------------------------------------------------------------------------------------------- the profiles


def test_profiles_run_in_the_order_given_and_shipped_trains_nothing(folder):
    done = folder.call("shipped", "laptop", "smoke")
    assert done.returncode == 0, done.stderr
    expected = [report_line("shipped"), run_line("laptop"), report_line("laptop"), run_line("smoke")]
    assert folder.calls() == [*expected, report_line("smoke")]


def test_without_a_profile_it_is_smoke_and_then_shipped_once_rows_are_shipped(folder):
    assert folder.call().returncode == 0
    assert folder.calls() == [run_line("smoke"), report_line("smoke")]
    (folder.path / "results").mkdir()
    (folder.path / "results" / "shipped.jsonl").touch()
    assert folder.call("--workers", "2").returncode == 0
    assert folder.calls() == [run_line("smoke") + " --workers 2", report_line("smoke"), report_line("shipped")]


def test_options_reach_training_or_report_wherever_they_stand(folder):
    arguments = (
        "--workers 2 smoke --device=cuda:1 --only 2 laptop --minutes 0.5 --dask tcp://a:1"
        " -p widths=[16,32] --only=05 -p name=a=b"
    )
    assert folder.call(*arguments.split()).returncode == 0
    trained = " --workers 2 --device cuda:1 --only 02 --minutes 0.5 --dask tcp://a:1 --only 05"
    reported = " --only 02 -p widths=[16,32] --only 05 -p name=a=b"
    assert folder.calls() == [
        line
        for profile in ("smoke", "laptop")
        for line in (
            f"{report_line(profile)} --check{reported}",  # a misspelt parameter is said before the training
            run_line(profile) + trained,
            report_line(profile) + reported,
        )
    ]


def test_a_misspelt_parameter_ends_the_run_before_any_training(folder):
    done = folder.call("smoke", "-p", "widht=[16]", answers=[f"2|{report_line('smoke')} --check -p widht=[16]"])
    assert done.returncode == 2
    assert len(folder.calls()) == 1


def test_a_value_with_spaces_stays_one_argument(folder):
    folder.write("python", PYTHON.replace('echo "$*"', """printf '%s;' "$@" | sed 's/$/\\n/'"""))
    assert folder.call("shipped", "-p", "title=two words *").returncode == 0
    given = "-p;title=two words *;"
    assert folder.calls() == [f"-m;robustkit;report;shipped;--check;{given}", f"-m;robustkit;report;shipped;{given}"]


def test_after_a_failure_the_rest_goes_on_and_the_end_names_what_failed(folder):
    answers = [f"1|{run_line('smoke')}", f"137|{report_line('laptop')}"]
    done = folder.call("smoke", "laptop", "shipped", answers=answers)
    assert done.returncode == 1
    assert len(folder.calls()) == 5
    listed = done.stderr.partition("Failed:\n")[2].splitlines()
    assert listed == [
        "  smoke: training (exit status 1)",
        "  laptop: notebooks and report (exit status 137)",
    ]


@pytest.mark.parametrize("status", [2, 130, 143])
def test_bad_input_and_interruption_end_the_run_at_once_with_their_own_status(folder, status):
    done = folder.call("smoke", "laptop", answers=[f"{status}|{report_line('smoke')}"])
    assert done.returncode == status
    assert folder.calls() == [run_line("smoke"), report_line("smoke")]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_script_alone_stops_the_training_it_waits_for(folder, number, status):
    environment = folder.environment([f"slow|{run_line('smoke')}"])
    with subprocess.Popen(
        [folder.path / "run_all.sh", "smoke", "laptop"], env=environment, stdout=subprocess.PIPE
    ) as run:
        give_up = time.monotonic() + 300
        while not (folder.log.exists() and "waiting" in folder.log.read_text()) and time.monotonic() < give_up:
            time.sleep(0.02)
        run.send_signal(number)
        run.communicate(timeout=300)
    assert run.returncode == status
    assert folder.calls() == [run_line("smoke"), "waiting", "stopped"]


def test_relative_folders_in_the_environment_are_those_of_the_caller(folder, tmp_path):
    done = folder.call("shipped", cwd=tmp_path, ROBUSTKIT_DATA="my data", ROBUSTKIT_RESULTS="/elsewhere")
    assert done.returncode == 0
    seen = Path(f"{folder.log}.environment").read_text()
    assert seen == f"data={tmp_path}/my data results=/elsewhere\n"


# ---------------------------------------------------------------------------------------------- the tests


def test_the_word_test_runs_ruff_and_then_pytest_with_the_arguments_given(folder):
    assert folder.call("test", "-k", "a or b", "--help").returncode == 0
    assert folder.calls() == ["-m ruff check .", "-m ruff format --check .", f"{PYTEST} -k a or b --help"]


@pytest.mark.parametrize("failing", ["-m ruff check", "-m ruff format", "-m pytest"])
def test_the_word_test_fails_if_any_of_the_three_fails_and_still_runs_them_all(folder, failing):
    done = folder.call("test", answers=[f"1|{failing}"])
    assert done.returncode == 1
    assert "Failed:" in done.stderr
    assert len(folder.calls()) == 3


def test_the_continuous_integration_runs_the_word_test_from_any_folder(folder, tmp_path):
    assert folder.call(program=".ci/run", cwd=tmp_path).returncode == 0
    assert folder.calls()[-1] == PYTEST
    assert folder.call(program=".ci/run", answers=["1|-m pytest"]).returncode == 1


# ---------------------------------------------------------------------------------------------- the set-up


def test_it_installs_once_and_again_when_the_list_of_packages_changed(bare):
    work = [run_line("smoke"), report_line("smoke")]
    first = bare.call("smoke")
    assert first.returncode == 0, first.stderr
    assert bare.calls() == ["-m venv --clear .venv", INSTALL, *work]
    assert sum("minutes" in line for line in first.stdout.splitlines()) == 1
    again = bare.call("smoke")
    assert bare.calls() == work
    assert "minutes" not in again.stdout
    with open(bare.path / "constraints.txt", "a") as file:
        file.write("another==1\n")
    assert bare.call("smoke").returncode == 0
    assert bare.calls() == [INSTALL, *work]


def test_an_active_venv_of_our_own_is_brought_up_to_date_too(bare):
    assert bare.call("smoke").returncode == 0
    bare.calls()
    with open(bare.path / "pyproject.toml", "a") as file:
        file.write("# changed\n")
    active = os.pathsep.join([str(bare.path / ".venv" / "bin"), os.environ["PATH"]])
    assert bare.call("shipped", PATH=active).returncode == 0
    assert bare.calls() == [INSTALL, report_line("shipped")]


def test_an_interrupted_installation_is_repeated(bare):
    done = bare.call("smoke", answers=["1|-m pip"])
    assert done.returncode == 1
    assert "pip install failed" in done.stderr
    assert bare.calls() == ["-m venv --clear .venv", INSTALL]
    (bare.path / ".venv" / "bin" / "ready").touch()  # part of it arrived
    assert bare.call("test").returncode == 0
    assert bare.calls()[0] == INSTALL


def test_an_interrupted_update_is_repeated_even_if_the_list_is_what_it_was_again(bare):
    assert bare.call("shipped").returncode == 0
    before = (bare.path / "constraints.txt").read_text()
    (bare.path / "constraints.txt").write_text(before + "another==1\n")
    assert bare.call("shipped", answers=["1|-m pip"]).returncode == 1
    (bare.path / "constraints.txt").write_text(before)
    bare.calls()
    assert bare.call("shipped").returncode == 0
    assert bare.calls() == [INSTALL, report_line("shipped")]


def test_a_venv_whose_python_is_gone_is_made_anew(bare):
    assert bare.call("shipped").returncode == 0
    bare.calls()
    (bare.path / ".venv" / "bin" / "python").unlink()
    assert bare.call("shipped").returncode == 0
    assert bare.calls() == ["-m venv --clear .venv", INSTALL, report_line("shipped")]


def test_a_python_that_is_too_old_is_named(bare):
    done = bare.call("smoke", TOO_OLD="1")
    assert done.returncode == 2
    assert "python3 is Python 3.9.2, but must be Python 3.11 or newer" in done.stderr
    assert bare.calls() == []


def use_real_python(folder, *, robustkit_in):
    """Let `python` on PATH be the real one, importing robustkit from a folder (python3 stays the played one)."""
    (robustkit_in / "robustkit").mkdir(parents=True)
    (robustkit_in / "robustkit" / "__init__.py").touch()
    (robustkit_in / "robustkit" / "__main__.py").write_text("import sys\nprint('real', *sys.argv[1:])\n")
    folder.write("python", f'#!/usr/bin/env bash\nexec "{sys.executable}" "$@"\n')


def test_an_environment_with_this_folders_robustkit_is_used_as_it_is(bare):
    use_real_python(bare, robustkit_in=bare.path)
    done = bare.call("shipped", PYTHONPATH=str(bare.path))
    assert "real report shipped" in done.stdout, done.stderr
    assert bare.calls() == []


def test_neither_another_folders_robustkit_nor_the_current_folder_is_taken_for_it(bare, tmp_path):
    use_real_python(bare, robustkit_in=tmp_path / "another")
    shutil.copytree(tmp_path / "another" / "robustkit", bare.path / "robustkit")
    done = bare.call("shipped", cwd=bare.path, PYTHONPATH=str(tmp_path / "another"))
    assert done.returncode == 0, done.stderr
    assert bare.calls() == ["-m venv --clear .venv", INSTALL, report_line("shipped")]
