"""Draw the figures of a committed notebook twice, from the committed rows, in processes that hash differently."""

import os
import subprocess
import sys

from robustkit.report.notebooks import NOTEBOOKS, notebooks

# The cells of code one after another, as Run All does, or the first so many.
RUN_ALL = """
import sys, nbformat
cells, names = nbformat.read(sys.argv[1], as_version=4).cells, {}
for cell in [cell for cell in cells if cell.cell_type == "code"][: int(sys.argv[2])]:
    exec(compile(cell.source, "cell", "exec"), names)
"""


def drawn_twice(number, tmp_path, cells=999):
    """The files of both, content by name; the second process starts later than the first by its run."""
    drawn = []
    for seed in ("0", "1"):
        folder = tmp_path / seed
        own = {"ROBUSTKIT_RESULTS": str(folder / "results"), "ROBUSTKIT_FIGURES": str(folder / "figures")}
        own |= {"PYTHONHASHSEED": seed, "ROBUSTKIT_STATIC": "1", "MPLBACKEND": "agg"}
        command = [sys.executable, "-c", RUN_ALL, str(notebooks([number])[0]), str(cells)]
        done = subprocess.run(command, cwd=NOTEBOOKS, env=os.environ | own, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        figures = (folder / "figures" / "shipped").iterdir()
        drawn.append({path.name: path.read_bytes() for path in figures if path.is_file()})
    return drawn
