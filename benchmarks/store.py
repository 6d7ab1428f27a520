"""Time the store: the statuses of 2 000 runs among 100 000 rows, the frame of 10 000, the saving of one.

    python benchmarks/store.py

Rows are copies of the first shipped one with other seeds, about 4 kB each; they take 430 MB in a temporary folder.
Each time is the best of five, as wall-clock time and as CPU time of this process.

Last run on two very busy CPU cores: statuses 1.37 s (0.51 s of this process), frame 4.68 s (1.79 s), of which rows
3.37 s (1.42 s), saving 0.007 s (0.0005 s).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from robustkit.cell import NUMERICS, Cell, key_of
from robustkit.sweep import store, train_missing

FIRST = store.SHIPPED


def write(path: Path, count: int) -> None:
    """Write a file of rows that differ only in their seeds and keys."""
    row, cell = store.read_rows(FIRST)[0], Cell(**store.read_rows(FIRST)[0]["cell"])
    with open(path, "w") as file:
        for number in range(count):
            fields = row["cell"] | {"seed": number}
            key = key_of(fields, cell.data.sha256, NUMERICS[cell.model])
            file.write(store.encode(row | {"key": key, "cell": fields}) + "\n")


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
        keys = [row["key"] for row in store.read_rows(some)[::5]]
        size = many.stat().st_size / 1e6
        assert len(store.load_statuses(keys)) == len(keys)
        print(
            f"statuses of 2 000 runs among 100 000 rows, {size:.0f} MB: {seconds(lambda: store.load_statuses(keys))}"
        )
        store.SHIPPED = some
        assert len(train_missing.load()) == 10_000
        print(f"frame of 10 000 rows: {seconds(train_missing.load)}, of which rows {seconds(store.load_rows)}")
        print(f"saving a row: {seconds(lambda: store.append(row, some))}")


if __name__ == "__main__":
    main()
