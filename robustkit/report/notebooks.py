"""The notebooks: built from their sources, checked parameters, and run with papermill."""

from __future__ import annotations

import ast
import itertools
import json
import multiprocessing
import os
import tempfile
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path

from ..checks import InputError, check_choice
from ..files import ROOT, results_folder, write_atomically

NOTEBOOKS = ROOT / "notebooks"


def notebooks(only=()) -> list[Path]:
    """The notebooks in order, or those whose number is in `only`. Raises InputError on an unknown number."""
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    for number in only:
        check_choice("--only", number, [path.name[:2] for path in paths])
    return [path for path in paths if not only or path.name[:2] in only]


def parameters_of(path: Path) -> dict:
    """Names and defaults of a notebook's parameters: the assignments of literals in the cell tagged `parameters`."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            lines = ast.parse("".join(cell["source"])).body
            return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}
    return {}


def check_parameters(paths: list[Path], given: dict) -> dict[Path, dict]:
    """Which of the parameters given each notebook takes. Raises InputError on an unknown name or a wrong type.

    Papermill only warns of an unknown name, and writes any name into the code as it is.
    """
    defaults = {path: parameters_of(path) for path in paths}
    names = sorted({name for own in defaults.values() for name in own})
    for name, value in given.items():
        check_choice("the notebook parameter", name, names)
        for default in (own[name] for own in defaults.values() if name in own):
            if default is None and isinstance(value, list):
                fits = value and all(type(n) is int for n in value) and len(set(value)) == len(value)
                wanted = "a non-empty list of whole numbers without duplicates"
            else:
                fits = type(value) is type(default)
                wanted = "a list such as [0, 1]" if default is None else f"of type {type(default).__name__}"
            if not fits:
                raise InputError(f"the notebook parameter {name} is {value!r}, but must be {wanted}")
    return {path: {name: value for name, value in given.items() if name in own} for path, own in defaults.items()}


def execute(profile: str, *, only=(), parameters: dict | None = None, workers: int = 2) -> list[str]:
    """Run the notebooks for a profile, `workers` at a time; their copies lie in results/local/notebooks/<profile>/.

    They draw what the store holds, say what is missing, and train nothing.
    Returns a sentence for each notebook that failed, in whatever way; the others are finished all the same.
    """
    paths = notebooks(only)
    given = check_parameters(paths, {"profile": profile} | (parameters or {}))
    folder = results_folder() / "notebooks" / profile
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    with _pool(min(workers, len(paths))) as pool:
        try:
            # The last one, the ledger, takes longest: begun first, it does not run on alone.
            jobs = {path: pool.submit(_execute, path, folder / path.name, given[path]) for path in reversed(paths)}
            for path in paths:
                try:
                    problem = jobs[path].result()
                except BrokenExecutor:  # a process of the pool died, and took those of the others with it
                    problem = _alone(path, folder / path.name, given[path])
                print(f"{path.stem}: {'failed' if problem else 'done'}", flush=True)
                if problem:
                    failed.append(f"{path.stem}: {problem}")
        except (KeyboardInterrupt, SystemExit):
            for process in multiprocessing.active_children():
                process.kill()  # the pool would wait for the notebooks that are running
            raise
    return failed


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _alone(path: Path, copy: Path, parameters: dict) -> str | None:
    try:
        with _pool(1) as pool:
            return pool.submit(_execute, path, copy, parameters).result()
    except BrokenExecutor:
        return "its process died (killed, or out of memory)"


def _execute(path: Path, copy: Path, parameters: dict) -> str | None:
    """Run one notebook in this process, and keep a copy of it as far as it came; what went wrong, if anything did."""
    import papermill

    options = {"kernel_name": "python3", "cwd": NOTEBOOKS, "progress_bar": False}
    problem, braces = None, str.maketrans({"{": "{{", "}": "}}"})  # papermill formats its paths
    try:
        with tempfile.TemporaryDirectory() as folder:
            _set_environment(folder)
            part = Path(folder) / copy.name
            names = (str(name).translate(braces) for name in (path, part))
            try:
                papermill.execute_notebook(*names, parameters, extra_arguments=["--log-level=50"], **options)
            except papermill.PapermillExecutionError as error:
                problem = f"{error.ename}: {error.evalue} (in {copy})"
            except Exception as error:  # a kernel may end, or not begin, in many ways
                problem = f"{type(error).__name__}: {str(error).strip()} (in {copy})"
            if part.exists():
                write_atomically(copy, part.read_bytes())
    except OSError as error:
        return f"{error.strerror or error}: {error.filename or copy}"
    return problem


def _set_environment(folder: str) -> None:
    """A kernel of this Python that draws PNG, whatever the user's Jupyter, IPython and Matplotlib are set to."""
    import matplotlib
    from ipykernel.kernelspec import write_kernel_spec

    write_kernel_spec(Path(folder) / "kernels" / "python3", extra_arguments=["--InlineBackend.figure_formats=png"])
    for name in [name for name in os.environ if name.startswith(("JUPYTER_", "IPYTHON", "PYTHONSTARTUP"))]:
        del os.environ[name]
    os.environ |= {"JUPYTER_PATH": folder, "JUPYTER_RUNTIME_DIR": folder, "IPYTHONDIR": folder}
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    os.environ["MATPLOTLIBRC"] = os.path.join(matplotlib.get_data_path(), "matplotlibrc")
    os.environ["TQDM_DISABLE"] = os.environ.get("TQDM_DISABLE", "1")
    os.environ["ROBUSTKIT_STATIC"] = "1"  # pictures in place of sliders, which do not move on a page


def build_notebooks() -> None:
    """Make each .ipynb from its .py, the source, keeping the outputs of cells that did not change."""
    for source in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py")):
        build_notebook(source, source.with_suffix(".ipynb"))


def build_notebook(source: Path, outputs: Path) -> None:
    """Write the .ipynb of one .py with the outputs that another notebook holds for the same cells."""
    import jupytext
    import nbformat
    from jupytext.combine import combine_inputs_with_outputs

    notebook = jupytext.read(source)
    if outputs.exists():
        executed = nbformat.read(outputs, as_version=4)
        executed.cells = [c for c in executed.cells if "injected-parameters" not in c.metadata.get("tags", [])]
        notebook = combine_inputs_with_outputs(notebook, executed)
        sources = {cell.source for cell in executed.cells}
        for cell in notebook.cells:
            if cell.cell_type == "code" and cell.source not in sources:  # matched by position alone: stale
                cell.outputs, cell.execution_count = [], None
    notebook.metadata = {
        "jupytext": {"cell_metadata_filter": "tags,-all", "notebook_metadata_filter": "kernelspec,-all"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    }
    count = itertools.count(1)  # without the cell that papermill put in
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        if cell.get("execution_count"):
            cell.execution_count = next(count)
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        for output in cell.get("outputs", ()):
            output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
            if "execution_count" in output:
                output.execution_count = cell.execution_count
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    write_atomically(source.with_suffix(".ipynb"), nbformat.writes(nbformat.from_dict(notebook)) + "\n")
