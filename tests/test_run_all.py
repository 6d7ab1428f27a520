"""run_all.sh: which Python it finds or makes, what it hands on, how it ends. Python is played by a small script."""

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
  "-c "*flock*) exec "$REAL" "$@" ;;
  "-c "*version_info*) exit "${TOO_OLD-0}" ;;
  "-c "*) test -e "$bin/ready"; exit ;;
  "--version "*) echo "Python 3.9.2"; exit ;;
esac
echo "$*" >>"$CALLS"
while IFS='|' read -r status words; do
  if [[ $words && $* == "$words"* ]]; then
    [[ $status == slow || $status == held ]] || exit "$status"
    if [[ $status == held ]]; then
      echo waiting >>"$CALLS"
      until [[ -e $(dirname "$CALLS")/bin/go ]]; do sleep 0.05; done
      break
    fi
    trap 'echo stopped >>"$CALLS"; kill "$!"; exit 130' INT
    trap 'echo stopped >>"$CALLS"; kill "$!"; exit 143' TERM
    sleep 600 &
    echo waiting >>"$CALLS"
    wait
  fi
done <<<"${ANSWERS-}"
case "$*" in
  "-m venv"*) mkdir -p "$5/bin" && cp "$0" "$5/bin/python" && printf '#!%s\n' "$5/bin/python" >"$5/bin/tool" ;;
  "-m pip"*) touch "$bin/ready" ;;
  "-m robustkit"*) env | grep ^ROBUSTKIT_ | sort >"$CALLS.environment" ;;
esac
"""

INSTALL = "-m pip install -q -c constraints.txt -e .[notebooks,test]"
CHECK, WORK = "-m robustkit reproduce --check smoke", "-m robustkit reproduce smoke"


class Folder:
    """A copy of the project with a played Python, under a path with a space and a letter outside ASCII."""

    def __init__(self, path):
        self.path = path / "a größer folder"
        self.bin = path / "bin"
        self.log = path / "calls"
        (self.path / ".ci").mkdir(parents=True)
        for name in ("run_all.sh", "pyproject.toml", "constraints.txt", ".ci/run"):
            shutil.copy(ROOT / name, self.path / name)
        self.bin.mkdir()
        for name in ("python", "python3"):
            self.write(name, PYTHON)

    def write(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def environment(self, answers=(), **more):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ROBUSTKIT_", "PYTHON", "VIRTUAL_ENV"))}
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        return kept | {
            "PATH": path,
            "CALLS": str(self.log),
            "ANSWERS": "\n".join(answers),
            "REAL": sys.executable,
            **more,
        }

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
        lines = self.log.read_text().replace(f"{self.path}/", "").splitlines() if self.log.exists() else []
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


# ---------------------------------------------------------------------------------------------- the words


@pytest.fixture
def without_packages(bare):
    """The Python on PATH is a real one without any package, and the folder holds robustkit and the notebooks."""
    for name in ("robustkit", "notebooks"):
        (bare.path / name).symlink_to(ROOT / name)
    for name in ("python", "python3"):
        bare.write(name, f'#!/usr/bin/env bash\nexec "{sys.executable}" -S "$@"\n')
    return bare


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["smok"], "profile is 'smok', but must be one of smoke, laptop, paper, shipped; did you mean 'smoke'?"),
        (["smoke", "Shiped"], "did you mean 'shipped'?"),
        (["everything"], "profile is 'everything', but must be one of smoke, laptop, paper, shipped\n"),
        (["smoke", "test"], "profile is 'test', but"),
        ([""], "profile is '', but"),
        (["--workers", "0"], "workers is 0, but must be an integer and at least 1"),
        (["--minutes", "-5"], "minutes is -5.0, but must be a finite number and above 0"),
        (["--only", "07"], "--only is '07', but must be one of 00, 01, "),
        (["--only", "*"], "--only is '*', but"),
        (["-p", "width"], "-p is 'width', but must be NAME=VALUE"),
        (["-p", "widht=16"], "did you mean 'width'?"),
    ],
)
def test_a_wrong_word_is_refused_in_a_sentence_before_any_environment_is_made(without_packages, arguments, sentence):
    done = without_packages.call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert not (without_packages.path / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["smoke", "--wrkers", "2"], "unrecognized arguments: --wrkers"),
        (["smoke", "-x"], "unrecognized arguments: -x"),
        (["--workers"], "argument --workers: expected one argument"),
        (["--device", "--minutes", "3"], "argument --device: expected one argument"),
        (["--workers=two"], "argument --workers: invalid int value: 'two'"),
    ],
)
def test_a_wrong_option_too(without_packages, arguments, sentence):
    done = without_packages.call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert not (without_packages.path / ".venv").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["smoke", "--help"]])
def test_help_names_every_profile_and_option_and_makes_no_environment(without_packages, arguments):
    done = without_packages.call(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("smoke", "laptop", "paper", "shipped", "test", "--workers", "--device", "--minutes", "--only", "-p"):
        assert f" {word} " in done.stdout
    assert not (without_packages.path / ".venv").exists()


def test_each_word_is_handed_on_as_it_is(folder):
    folder.write("python", PYTHON.replace('echo "$*"', """printf '%s;' "$@" | sed 's/$/\\n/'"""))
    assert folder.call("shipped", "--only=02", "-p", "title=two words *").returncode == 0
    assert folder.calls() == ["-m;robustkit;reproduce;shipped;--only=02;-p;title=two words *;"]
    assert folder.call().returncode == 0
    assert folder.calls() == ["-m;robustkit;reproduce;"]


def test_the_word_test_hands_the_others_to_pytest(folder):
    assert folder.call("test", "-k", "a or b", "--help").returncode == 0
    assert folder.calls() == ["-m robustkit test -k a or b --help"]


def test_the_continuous_integration_runs_the_word_test_from_any_folder(folder, tmp_path):
    assert folder.call(program=".ci/run", cwd=tmp_path).returncode == 0
    assert folder.calls() == ["-m robustkit test"]
    assert folder.call(program=".ci/run", answers=["1|-m robustkit test"]).returncode == 1


@pytest.mark.parametrize("status", [1, 2, 130, 137, 143])
def test_it_ends_with_the_status_of_the_command(folder, status):
    assert folder.call("smoke", answers=[f"{status}|{WORK}"]).returncode == status


@pytest.mark.parametrize("step", [WORK, INSTALL, "-m venv"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_script_alone_ends_what_it_is_at(request, step, number, status):
    folder = request.getfixturevalue("folder" if step == WORK else "bare")
    environment = folder.environment([f"slow|{step}"])
    with subprocess.Popen([folder.path / "run_all.sh", "smoke"], env=environment) as run:
        give_up = time.monotonic() + 300
        while not (folder.log.exists() and "waiting" in folder.log.read_text()) and time.monotonic() < give_up:
            time.sleep(0.02)
        run.send_signal(number)
        run.communicate(timeout=300)
    assert run.returncode == status
    give_up = time.monotonic() + 60
    while "stopped" not in folder.log.read_text() and time.monotonic() < give_up:
        time.sleep(0.02)
    assert folder.calls()[-2:] == ["waiting", "stopped"]


def test_relative_folders_in_the_environment_are_those_of_the_caller(folder, tmp_path):
    given = {"ROBUSTKIT_DATA": "my data", "ROBUSTKIT_RESULTS": "/elsewhere", "ROBUSTKIT_FIGURES": "figures"}
    assert folder.call("shipped", cwd=tmp_path, **given).returncode == 0
    seen = Path(f"{folder.log}.environment").read_text().splitlines()
    assert seen[0] == f"ROBUSTKIT_DATA={tmp_path}/my data"
    assert seen[1:] == [f"ROBUSTKIT_FIGURES={tmp_path}/figures", "ROBUSTKIT_RESULTS=/elsewhere"]


# ---------------------------------------------------------------------------------------------- the set-up

NEW = [CHECK, "-m venv --prompt .venv .venv-part", INSTALL, WORK]


def test_it_installs_once_and_again_when_the_list_of_packages_changed(bare):
    first = bare.call("smoke")
    assert first.returncode == 0, first.stderr
    assert bare.calls() == NEW
    assert sum("minutes" in line for line in first.stdout.splitlines()) == 1
    again = bare.call("smoke")
    assert bare.calls() == [WORK]
    assert "minutes" not in again.stdout
    with open(bare.path / "constraints.txt", "a") as file:
        file.write("another==1\n")
    assert bare.call("smoke").returncode == 0
    assert bare.calls() == NEW
    made = [path.name for path in bare.path.iterdir() if path.name.startswith(".venv")]
    assert sorted(made) == [".venv", ".venv-lock"]
    assert (bare.path / ".venv/bin/tool").read_text() == f"#!{bare.path}/.venv/bin/python\n"


def test_an_active_venv_of_our_own_is_brought_up_to_date_too(bare):
    assert bare.call("smoke").returncode == 0
    bare.calls()
    with open(bare.path / "pyproject.toml", "a") as file:
        file.write("# changed\n")
    active = os.pathsep.join([str(bare.path / ".venv" / "bin"), str(bare.bin), os.environ["PATH"]])
    assert bare.call("smoke", PATH=active).returncode == 0
    assert bare.calls() == NEW


@pytest.mark.parametrize("broken", ["1|-m pip", "1|-m venv"])
def test_an_interrupted_installation_is_repeated_from_its_beginning(bare, broken):
    """A disk that was full while pip wrote left a .venv on which pip failed for good."""
    done = bare.call("smoke", answers=[broken])
    assert done.returncode == 1
    assert f"{broken[2:]} failed" in done.stderr
    assert not (bare.path / ".venv").exists()
    bare.calls()
    assert bare.call("test").returncode == 0
    assert bare.calls() == [*NEW[1:3], "-m robustkit test"]


def test_a_venv_that_this_script_did_not_finish_is_kept_beside_the_new_one(bare):
    (bare.path / ".venv/bin").mkdir(parents=True)
    (bare.path / ".venv/bin/mine").touch()
    done = bare.call("smoke")
    assert done.returncode == 0 and bare.calls() == NEW
    (kept,) = bare.path.glob(".venv-before-*")
    assert kept.name in done.stdout and (kept / "bin/mine").exists()


def test_two_at_once_make_one_environment_and_both_use_it(bare):
    """The second one filled the same .venv while the first did."""
    with subprocess.Popen([bare.path / "run_all.sh", "smoke"], env=bare.environment(["held|-m pip"])) as first:
        wait_for(lambda: "waiting" in bare.log.read_text() if bare.log.exists() else False)
        pipes = {"stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([bare.path / "run_all.sh", "test"], env=bare.environment(), **pipes) as second:
            assert second.stdout.readline() == "Waiting for another run_all.sh, which fills .venv.\n"
            (bare.bin / "go").touch()
            second.communicate(timeout=300)
        first.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 0)
    calls = bare.calls()
    assert [call for call in calls if call.startswith(("-m venv", "-m pip"))] == NEW[1:3]
    assert {WORK, "-m robustkit test"} <= set(calls)


def wait_for(condition):
    give_up = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.02)


def test_an_interrupted_update_is_repeated_even_if_the_list_is_what_it_was_again(bare):
    assert bare.call("smoke").returncode == 0
    before = (bare.path / "constraints.txt").read_text()
    (bare.path / "constraints.txt").write_text(before + "another==1\n")
    assert bare.call("smoke", answers=["1|-m pip"]).returncode == 1
    (bare.path / "constraints.txt").write_text(before)
    bare.calls()
    assert bare.call("smoke").returncode == 0
    assert bare.calls() == [WORK]  # the one that is there was not touched


def test_a_venv_whose_python_is_gone_is_made_anew(bare):
    assert bare.call("smoke").returncode == 0
    bare.calls()
    (bare.path / ".venv" / "bin" / "python").unlink()
    assert bare.call("smoke").returncode == 0
    assert bare.calls() == NEW


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
    done = bare.call("smoke", PYTHONPATH=str(bare.path))
    assert "real reproduce smoke" in done.stdout, done.stderr
    assert bare.calls() == []


def test_neither_another_folders_robustkit_nor_the_current_folder_is_taken_for_it(bare, tmp_path):
    use_real_python(bare, robustkit_in=tmp_path / "another")
    shutil.copytree(tmp_path / "another" / "robustkit", bare.path / "robustkit")
    done = bare.call("smoke", cwd=bare.path, PYTHONPATH=str(tmp_path / "another"))
    assert done.returncode == 0, done.stderr
    assert bare.calls() == NEW
