"""Time the store: the statuses of 100 000 rows, the frame of 10 000, the saving of one.

    python benchmarks/store.py

Rows are copies of the first shipped one with distinct keys, about 4 kB each; they take 430 MB in a temporary folder.
Each time is the best of five, as wall-clock time and as CPU time of this process.

Last run on two busy CPU cores: statuses 0.53 s (0.51 s of this process), frame 1.01 s (0.98 s), of which rows 0.83 s
(0.82 s), saving 0.004 s (0.0005 s).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from robustkit.sweep import store, train_missing


def write(path: Path, count: int) -> None:
    """Write a file of rows that differ only in their keys."""
    with open(store.SHIPPED) as file:
        row = store.decode(next(file).rstrip("\n"))
    with open(path, "w") as file:
        for number in range(count):
            file.write(store.encode(row | {"key": f"{number:064}"}) + "\n")


def seconds(call: Callable) -> str:
    """The best of five calls, in wall-clock and CPU time."""
    times = []
    for _ in range(5):
        clock, own = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - clock, time.process_time() - own))
    clocks, owns = zip(*times, strict=True)
    return f"{min(clocks):.4f} s ({min(owns):.4f} s of this process)"


def main() -> None:
    """Print the three times."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ROBUSTKIT_RESULTS"] = folder
        many, some = Path(folder) / "many.jsonl", Path(folder) / "some.jsonl"
        write(many, 100_000)
        write(some, 10_000)
        row = store.read_rows(some)[0]
        store.SHIPPED = many
        assert len(store.load_statuses()) == 100_000
        size = many.stat().st_size / 1e6
        print(f"keys and statuses of 100 000 rows, {size:.0f} MB: {seconds(store.load_statuses)}")
        store.SHIPPED = some
        assert len(train_missing.load()) == 10_000
        print(f"frame of 10 000 rows: {seconds(train_missing.load)}, of which rows {seconds(store.load_rows)}")
        print(f"saving a row: {seconds(lambda: store.append(row, some))}")


if __name__ == "__main__":
    main()
