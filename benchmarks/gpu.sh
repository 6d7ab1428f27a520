#!/usr/bin/env bash
# What to run first on a GPU box: benchmarks/gpu.sh [MINUTES, 14 by default]. Tests, figures and a plan take some eight;
# what is left goes to the paper profile, cheapest runs first. Each line says what its figure must be on an H200. Run it
# again to go on. What is printed is kept in ${OUT:-results/local/gpu}, rows where ROBUSTKIT_RESULTS says.
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
until=$((SECONDS + 60 * ${1:-14})) out=${OUT:-results/local/gpu} python=${PYTHON:-python} status=0
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
mkdir -p "$out"

# part NAME SECONDS MUST COMMAND...: what it prints, and what it must be.
part() {
  local name=$1 seconds=$2 must=$3 left=$((until - SECONDS))
  shift 3
  echo "== $name (must be: $must)"
  if ((left < 20)); then echo "no time left" && return; fi
  timeout "$((seconds < left ? seconds : left))" "$@" 2>&1 | tee "$out/$name.txt"
  local ended=${PIPESTATUS[0]}
  if ((ended)); then echo "== $name ended with status $ended" && status=1; fi
}

nvidia-smi -L
part product 60 "cuda" "$python" -c 'from robustkit.sweep.device import resolve_device; print(resolve_device("cuda"))'
if ((status)); then exit 1; fi
part tests 150 "all passed, none skipped" \
  "$python" -m pytest -q -rs -n 0 -p no:cacheprovider -k "gpu and not paper" tests/training/test_ensemble.py tests/training/test_loop.py
part figures 270 "beside each" "$python" benchmarks/gpu.py
part engine 150 "d/a at least 300 and d/b 30 to width 512; 1.3 times the roofline at most from 4096 on" \
  "$python" benchmarks/engine.py --device cuda --rounds 1 --seconds 0.3
part plan 150 "10 hours at most, with no row shipped" "$python" -m robustkit plan paper --device cuda
minutes=$(((until - SECONDS - 15) / 60))
if ((minutes > 0)); then
  # Without the archives of CIFAR, which cannot be had everywhere: what needs none.
  only=()
  ls "${ROBUSTKIT_DATA:-data}"/cifar-10* >/dev/null 2>&1 || only=(--only 01 --only 02 --only 03 --only 04)
  part paper "$((60 * minutes + 60))" "no run failed" \
    "$python" -m robustkit run paper --device cuda --minutes "$minutes" "${only[@]}"
fi
echo "rows: ${ROBUSTKIT_RESULTS:-results/local}/rows.jsonl; python -m robustkit ship FILE merges them, with the device's name"
exit "$status"
