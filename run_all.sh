#!/usr/bin/env bash
# Finds or makes the Python environment, then runs `python -m robustkit reproduce` with the words given, or its `test`.
set -euo pipefail

# Relative to where the caller stands, not to this folder.
for name in ROBUSTKIT_DATA ROBUSTKIT_RESULTS ROBUSTKIT_FIGURES; do
  case ${!name-} in
    '' | /* | '~'*) ;;
    *) export "$name=$PWD/${!name}" ;;
  esac
done

CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
here=$(pwd -P)
export PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1

modules=(papermill nbconvert ipykernel math_core)
if [[ ${1-} == test ]]; then
  modules+=(pytest pytest_timeout xdist hypothesis beartype art distributed ruff importlinter)
elif [[ " plan run status report ship reproduce " != *" ${1-} "* || -z ${1-} ]]; then
  set -- reproduce "$@"
fi

# The active environment is used if it has the modules, and its robustkit is the one in this folder. Asked from
# elsewhere, since Python finds whatever lies in the current folder.
is_ready() {
  (cd / && "$1" -c '
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("robustkit")
own = spec and spec.origin and pathlib.Path(spec.origin).resolve().parents[1] == pathlib.Path(sys.argv[1]).resolve()
sys.exit(0 if own and all(map(importlib.util.find_spec, sys.argv[2:])) else 1)
' "$here" "${modules[@]}") 2>/dev/null
}

stamp=.venv/robustkit-installed
for candidate in python python3; do
  python=$("$candidate" -c 'import sys; print(sys.executable)' 2>/dev/null) || continue
  # Our own .venv may be active and yet older than pyproject.toml.
  if [[ -f $stamp && $python == "$here"/.venv/* ]]; then continue; fi
  if is_ready "$python"; then exec "$python" -m robustkit "$@"; fi
done

python=$here/.venv/bin/python
wanted=$(cat pyproject.toml constraints.txt | cksum)
is_made() { [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && is_ready "$python"; }
if is_made; then exec "$python" -m robustkit "$@"; fi

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "run_all.sh: python3 is $(python3 --version 2>/dev/null || echo missing), but must be Python 3.11 or newer" >&2
  exit 2
fi
if [[ $1 == reproduce ]]; then # wrong words and --help need no environment; right words print nothing
  answer=$(python3 -m robustkit reproduce --check "${@:2}") || exit
  if [[ $answer ]]; then echo "$answer" && exit; fi
fi

# In the background, so that a signal to this script alone ends the step too.
stop() {
  kill $(jobs -p) 2>/dev/null || true
  exit "$1"
}
trap 'stop 129' HUP
trap 'stop 130' INT
trap 'stop 143' TERM
step() {
  "$@" </dev/null &
  wait "$!" && return
  echo "run_all.sh: ${*:2:2} failed; what it said is above. Run this again to retry." >&2
  exit 1
}

# One at a time. The lock is on the file that this shell holds open, and ends with it.
exec 9>.venv-lock
step python3 -c '
import contextlib, sys
with contextlib.suppress(ImportError, OSError):
    import fcntl
    try:
        fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Waiting for another run_all.sh, which fills .venv.", flush=True)
        fcntl.flock(9, fcntl.LOCK_EX)
'

# Made beside the old one and renamed when it is whole, so that nothing half-made is left in its place.
if ! is_made; then
  echo "Filling .venv with PyTorch, Jupyter and the test tools: once, about two minutes on a fast connection."
  part=$here/.venv-part
  rm -rf "$part"
  step python3 -m venv --prompt .venv "$part"
  step "$part/bin/python" -m pip install -q -c constraints.txt -e '.[notebooks,test]'
  shopt -u patsub_replacement 2>/dev/null || true # a path may hold an ampersand
  for file in "$part"/bin/* "$part/pyvenv.cfg"; do # scripts name their Python by its path
    if [[ -f $file ]] && grep -qIF "$part" "$file"; then
      text=$(<"$file")
      printf '%s\n' "${text//"$part"/$here/.venv}" >"$file"
    fi
  done
  echo "$wanted" >"$part/${stamp#.venv/}"
  if [[ -f $stamp ]]; then
    mv .venv ".venv-old-$$"
    rm -rf ".venv-old-$$" &
  elif [[ -e .venv ]]; then
    mv .venv ".venv-before-$$"
    echo "The .venv that was here, which this script did not finish, is now .venv-before-$$; delete it if you can."
  fi
  mv "$part" .venv
  wait
fi
exec 9>&-
exec "$python" -m robustkit "$@"
