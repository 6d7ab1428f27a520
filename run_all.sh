#!/usr/bin/env bash
# Sets up Python once, then trains, runs the notebooks and writes the report of each profile, or runs the tests.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: ./run_all.sh [PROFILE ...] [OPTION ...]
       ./run_all.sh test [ARGUMENT OF PYTEST ...]
       ./run_all.sh --help

Trains what a profile still lacks, runs its notebooks, and writes figures, tables, claims and the HTML report.
A run may be stopped at any time: the next one goes on where it stopped.

Profiles (without one: smoke, then shipped once rows are shipped)
  smoke     scikit-learn's digits, no download: about three minutes on two cores
  laptop    MNIST: one night on two cores
  paper     MNIST on the paper's grid of widths, to 16384: for a GPU box
  shipped   draws the rows in results/shipped.jsonl and trains nothing

Options
  --workers N       processes that train side by side
  --device D        where to train: auto, cpu, cuda, cuda:1, ...
  --dask ADDRESS    train on the Dask cluster whose scheduler listens there
  --minutes N       stop training after N minutes and report what is there
  --only NN         train what this notebook draws and run it alone, by its number; may be repeated
  -p NAME=VALUE     set a parameter of the notebooks; may be repeated

test checks the code with ruff and runs the tests, one process per core; tests/long as an argument runs the long ones.

Python: the active environment, if it has this folder's robustkit and what the command needs; else .venv in this
folder, made and filled on first use.

Exit status: 0 if all went well, 1 if something failed, 2 if the command was not understood, 130 or 143 if stopped.
TEXT
}

refuse() {
  printf 'run_all.sh: %s\n' "$1" >&2
  exit 2
}

# Relative to where the caller stands, not to this folder.
for name in ROBUSTKIT_DATA ROBUSTKIT_RESULTS; do
  case ${!name-} in
    '' | /* | '~'*) ;;
    *) export "$name=$PWD/${!name}" ;;
  esac
done

CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
here=$(pwd -P)
export PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# ---- The command is read in full before anything is installed or run.

read_name() {
  local near=
  case $1 in
    smoke | laptop | paper | shipped) profiles+=("$1") && return ;;
    test) refuse "test must come first, followed by nothing but arguments of pytest" ;;
    [Ss][Mm]*) near=smoke ;;
    [Ss][Hh]*) near=shipped ;;
    [Ll]*) near=laptop ;;
    [Pp]*) near=paper ;;
    [Tt]*) near='test' ;;
  esac
  if [[ $near ]]; then near="; did you mean '$near'?"; fi
  refuse "profile is '$1', but must be one of smoke, laptop, paper, shipped, or the word test$near"
}

read_option() {
  [[ $2 ]] || refuse "$1 needs a value; see ./run_all.sh --help"
  case $1 in
    --workers) [[ $2 =~ ^0*[1-9][0-9]*$ ]] || refuse "--workers is '$2', but must be a whole number of at least 1" ;;
    --minutes)
      [[ $2 =~ ^[0-9]*\.?[0-9]+$ && $2 =~ [1-9] ]] || refuse "--minutes is '$2', but must be a number above 0"
      ;;
    --only)
      if [[ $2 =~ ^[0-9]$ ]]; then set -- "$1" "0$2"; fi
      if [[ ! $2 =~ ^[0-9]+$ ]] || ! compgen -G "notebooks/$2_*.py" >/dev/null; then
        refuse "--only is '$2', but must be the number of a file in notebooks/, such as 02"
      fi
      ;;
    -p) [[ $2 =~ ^[A-Za-z_][A-Za-z_0-9]*= ]] || refuse "-p is '$2', but must be NAME=VALUE, such as -p width=64" ;;
  esac
  case $1 in
    --only) report_options+=("$1" "$2") train_options+=("$1" "$2") ;;
    -p) report_options+=("$1" "$2") ;;
    *) train_options+=("$1" "$2") ;;
  esac
}

profiles=() train_options=() report_options=() task=profiles
if [[ ${1-} == test ]]; then
  task='test'
  shift
else
  for argument; do
    case $argument in -h | --help) usage && exit ;; esac
  done
  while (($#)); do
    case $1 in
      --workers | --device | --minutes | --dask | --only | -p)
        [[ ${2-} == --* ]] && refuse "$1 needs a value, but is followed by $2"
        read_option "$1" "${2-}"
        shift
        ;;
      --workers=* | --device=* | --minutes=* | --dask=* | --only=*) read_option "${1%%=*}" "${1#*=}" ;;
      -*) refuse "option is '$1', but must be one of --workers, --device, --minutes, --dask, --only, -p, --help" ;;
      *) read_name "$1" ;;
    esac
    shift
  done
fi

if [[ $task == profiles ]] && ((${#profiles[@]} == 0)); then
  profiles=(smoke)
  if [[ -e results/shipped.jsonl ]]; then profiles+=(shipped); fi
fi

# ---- Running a step. A signal sent to this script alone must also end the training that it waits for.

stopped=
pass_on() {
  stopped=$2
  local group
  for group in $(jobs -p); do kill -s "$1" -- "-$group" 2>/dev/null || true; done
}
trap 'pass_on HUP 129' HUP
trap 'pass_on INT 130' INT
trap 'pass_on TERM 143' TERM

halt_if_stopped() {
  if [[ $stopped ]]; then exit "$stopped"; fi
}

run() {
  local child status
  halt_if_stopped
  set -m # a process group of its own: without it, bash makes what runs in the background deaf to Ctrl-C
  "$@" </dev/null &
  child=$!
  set +m
  while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break # wait also returns when a signal was passed on
  done
  halt_if_stopped
  return "$status"
}

# ---- Which Python

# owns PYTHON MODULE ...: it has the modules, and its robustkit is the one in this folder. Asked from elsewhere, since
# Python finds whatever lies in the current folder.
owns() {
  (cd / && "$1" -c '
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("robustkit")
own = spec and spec.origin and pathlib.Path(spec.origin).resolve().parents[1] == pathlib.Path(sys.argv[1]).resolve()
sys.exit(0 if own and all(map(importlib.util.find_spec, sys.argv[2:])) else 1)
' "$here" "${@:2}") 2>/dev/null
}

fail() {
  case $2 in 129 | 130 | 143) exit "$2" ;; esac
  printf 'run_all.sh: %s failed (exit status %s); what it said is above. Run this again to retry.\n' "$1" "$2" >&2
  exit 1
}

install() {
  local wanted
  wanted=$(cat pyproject.toml constraints.txt | cksum)
  python=$here/.venv/bin/python
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && owns "$python" "$@"; then return; fi
  # A .venv whose Python no longer starts, because it was moved or lost its base, is made anew.
  if ! "$python" -c 'import pip' 2>/dev/null; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
      refuse "python3 is $(python3 --version 2>/dev/null || echo missing), but must be Python 3.11 or newer"
    run python3 -m venv --clear .venv || fail "python3 -m venv" $?
  fi
  echo "Filling .venv with PyTorch, Jupyter and the test tools: once, about two minutes on a fast connection."
  rm -f "$stamp"
  run "$python" -m pip install -q -c constraints.txt -e '.[notebooks,test]' || fail "pip install" $?
  echo "$wanted" >"$stamp"
}

choose_python() {
  local candidate stamp=.venv/robustkit-installed
  for candidate in python python3; do
    python=$("$candidate" -c 'import sys; print(sys.executable)' 2>/dev/null) || continue
    # Our own .venv may be active and yet older than pyproject.toml: install looks at that.
    if [[ -f $stamp && $python == "$here"/.venv/* ]]; then continue; fi
    if owns "$python" "$@"; then return; fi
  done
  install "$@"
}

# ---- The work

failed=()
step() {
  local what=$1 status=0
  shift
  halt_if_stopped
  printf '\n== %s\n' "$what"
  run "$@" || status=$?
  case $status in
    0) ;;
    2 | 129 | 130 | 143) exit "$status" ;;
    *) failed+=("$what (exit status $status)") ;;
  esac
}

check() {
  local status=0
  halt_if_stopped
  "$python" -m "$@" || status=$? # in the foreground, so that pytest --pdb can be talked to
  halt_if_stopped
  if ((status)); then failed+=("$1 (exit status $status)"); fi
}

# ${array[@]+"${array[@]}"}: the bash of macOS takes an empty array for an unset name.
if [[ $task == test ]]; then
  choose_python pytest pytest_timeout xdist hypothesis beartype art distributed ruff importlinter papermill nbconvert \
    ipykernel math_core
  check ruff check .
  check ruff format --check .
  check pytest -q -n auto --maxprocesses 8 --dist worksteal "$@"
else
  choose_python papermill nbconvert ipykernel math_core
  for profile in "${profiles[@]}"; do
    if ((${#report_options[@]})); then # a misspelt parameter is said before the training, not after it
      "$python" -m robustkit report "$profile" --check "${report_options[@]}" || exit
    fi
    if [[ $profile != shipped ]]; then
      step "$profile: training" "$python" -m robustkit run "$profile" ${train_options[@]+"${train_options[@]}"}
    fi
    step "$profile: notebooks and report" \
      "$python" -m robustkit report "$profile" ${report_options[@]+"${report_options[@]}"}
  done
fi

if ((${#failed[@]})); then
  printf '\nFailed:\n' >&2
  printf '  %s\n' "${failed[@]}" >&2
  exit 1
fi
