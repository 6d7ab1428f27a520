"""Disks that are full or read-only, and folders with names of other languages."""

import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from made_rows import a_stored_row

import robustkit
from robustkit import files as files_module
from robustkit.cell import Cell
from robustkit.files import results_folder
from robustkit.plots import output, style
from robustkit.report import notebooks
from robustkit.sweep import store, train_missing

PAGE = 4096


def mounted(folder, option):
    """Whether an empty file system in memory could be mounted there: root may, others may not."""
    folder.mkdir()
    with contextlib.suppress(FileNotFoundError):
        command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True).returncode == 0
    return False


@pytest.fixture
def unmounting():
    """A list of folders to unmount, whatever happens."""
    folders = []
    try:
        yield folders
    finally:
        for folder in folders:
            subprocess.run(["umount", str(folder)], check=True)


# ------------------------------------------------------------------------------------------------ a full disk


@pytest.fixture
def small_disk(tmp_path, monkeypatch, unmounting):
    """A disk of 1 MiB with the folders of results and figures, and a context in which a single page of it is free.

    Where nothing can be mounted, a folder, and a context in which no file of this process may exceed a page.
    """
    folder = tmp_path / "small disk"
    real = mounted(folder, "size=1m")
    unmounting += [folder] * real
    monkeypatch.setenv("ROBUSTKIT_RESULTS", str(folder / "results"))
    monkeypatch.setenv("ROBUSTKIT_FIGURES", str(folder / "figures"))

    @contextlib.contextmanager
    def filled():
        filler = folder / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(PAGE))
        os.truncate(filler, filler.stat().st_size - PAGE)
        yield
        filler.unlink()

    @contextlib.contextmanager
    def limited():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return folder, filled if real else limited


def save_row(text, _):
    store.append(a_stored_row(reason=text))


def save_figure(text, _):
    figure, (ax,) = style.panels(1)
    ax.set_title(text[:10])
    ax.robustkit_tables = [pandas.DataFrame({"quantity": [text]})]
    output.save(figure, "N9", "smoke", None)


def save_table(text, _):
    output.save_table(pandas.DataFrame({"name": [text]}), "T", "smoke")


def save_notebook(_, folder):
    source = folder / "07_short.py"
    if not source.exists():
        source.symlink_to(source_of(folder))
    notebooks.build_notebook(source, source.with_suffix(".ipynb"))


def source_of(folder):
    """What the notebook is made from lies on another disk."""
    return folder.parent / "07_short.py"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "filler"}


RAISED = 'raise OSError(error.errno, f"the file could not be written ({error.strerror})", str(path)) from error'


@pytest.mark.guard(9, "robustkit/sweep/store.py", "file.truncate(end)", "pass")
@pytest.mark.guard(9, "robustkit/files.py", "part.unlink(missing_ok=True)", "pass")
@pytest.mark.guard(9, "robustkit/files.py", RAISED, "raise")
@pytest.mark.parametrize(
    ("save", "ending"),
    [(save_row, ".jsonl"), (save_figure, ".png"), (save_table, ".md"), (save_notebook, ".ipynb")],
)
def test_a_full_disk_is_said_with_the_path_and_what_was_there_is_kept(small_disk, save, ending):
    folder, full = small_disk
    source_of(folder).write_text("# %%\nprint('before')\n")
    save("before", folder)
    source_of(folder).write_text("# %%\nprint('after')\n" * 100)
    before = contents(folder)
    with full(), pytest.raises(OSError) as caught:
        save("x" * 3 * PAGE, folder)
    named = str(caught.value.filename)
    assert named.startswith(f"{folder}/") and named.endswith(ending) and named in str(caught.value)
    assert contents(folder) == before
    save("after", folder)
    assert contents(folder).keys() == before.keys() and contents(folder) != before


@pytest.mark.guard(9, "robustkit/files.py", "part.unlink(missing_ok=True)", "pass")
def test_a_full_disk_keeps_the_csv_that_is_there(small_disk):
    folder, full = small_disk
    path = folder / "a table.csv"
    files_module.write_atomically(path, "old")
    with full(), pytest.raises(OSError, match="a table.csv"):
        files_module.write_atomically(path, "new" * PAGE)
    assert path.read_text() == "old" and [p.name for p in folder.iterdir()] == [path.name]


SOURCE = """# %% tags=["parameters"]
profile = "shipped"

# %%
print("new" * 10_000)
"""


@pytest.mark.guard(9, "robustkit/files.py", "part.unlink(missing_ok=True)", "pass")
def test_a_full_disk_keeps_the_executed_copy_of_a_notebook(small_disk, tmp_path, monkeypatch):
    _, full = small_disk
    (tmp_path / "07_short.py").write_text(SOURCE)
    notebooks.build_notebook(tmp_path / "07_short.py", tmp_path / "07_short.ipynb")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    copy = results_folder() / "notebooks" / "smoke" / "07_short.ipynb"
    files_module.write_atomically(copy, "old")
    with full():
        (said,) = notebooks.execute("smoke", workers=1)
    assert str(copy) in said
    assert contents(results_folder()) == {copy: b"old"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.guard(9, "robustkit/files.py", "part.unlink(missing_ok=True)", "pass")
def test_a_write_that_fails_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, monkeypatch, step):
    path = tmp_path / "folder" / "rows.jsonl"
    files_module.write_atomically(path, "old")

    def fail(*_):
        raise OSError(5, "no luck", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(store.os, step, fail)
        with pytest.raises(OSError, match="no luck"):
            files_module.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == [path.name]
    files_module.write_atomically(path, "new\n")
    assert path.read_bytes() == b"new\n"


@pytest.mark.parametrize("save", [store.append, lambda row, path: files_module.write_atomically(path, str(row))])
@pytest.mark.guard(2, "robustkit/sweep/store.py", "            sync_folder(folder)\n", "            pass\n")
@pytest.mark.guard(2, "robustkit/files.py", "        sync_folder(path.parent)\n", "")
def test_a_new_file_is_found_in_its_folder_after_a_power_cut(tmp_path, monkeypatch, save):
    """The file was synced, and the folder that lists it was not."""
    synced, fsync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino) or fsync(handle))
    save(a_stored_row(), tmp_path / "new" / "rows.jsonl")
    assert {(tmp_path / "new").stat().st_ino, (tmp_path / "new" / "rows.jsonl").stat().st_ino} <= synced


def test_files_follow_the_umask_and_need_no_chmod(tmp_path, monkeypatch):
    """CIFS and exFAT refuse chmod: no table could be saved there; a group that shares a folder could not write."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    before = os.umask(0o002)
    try:
        files_module.write_atomically(tmp_path / "table.csv", "a,b")
        store.append(a_stored_row(), tmp_path / "rows.jsonl")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o664}


# ------------------------------------------------------------------------------------------------ folders

ONE_TRAINING = ["run", "smoke", "--claim", "E02", "--seeds", "1", "--widths", "4", "--device", "cpu"]


def command(*arguments, **folders):
    """What `python -m robustkit` says and returns."""
    here = {"env": os.environ | {name: str(folder) for name, folder in folders.items()}}
    here["cwd"] = Path(robustkit.__file__).parents[1]
    return subprocess.run([sys.executable, "-m", "robustkit", *arguments], capture_output=True, text=True, **here)


@pytest.fixture
def read_only(tmp_path, unmounting):
    """A folder in which nothing can be written, not by root either."""
    folder = tmp_path / "read-only"
    if mounted(folder, "ro"):
        unmounting.append(folder)
    elif os.geteuid() == 0:
        return Path("/proc/robustkit")
    else:
        folder.chmod(0o555)
    return folder


@pytest.mark.guard(10, "robustkit/sweep/train_missing.py", "    _check_writable()\n", "\n")
def test_a_read_only_results_folder_is_refused_before_any_run(read_only):
    ended = command(*ONE_TRAINING, ROBUSTKIT_RESULTS=read_only)
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == "" and f"results folder {read_only} cannot be written" in ended.stderr


def test_the_status_of_a_results_folder_that_is_read_only_is_said(tmp_path, unmounting):
    """It opened the file of locks for writing."""
    folder = tmp_path / "results"
    real = mounted(folder, "size=1m")
    unmounting += [folder] * real
    if os.geteuid() == 0 and not real:
        pytest.skip("root can write everywhere, and nothing can be mounted here")
    store.append(a_stored_row(), folder / "rows.jsonl")
    (folder / "begun.lock").touch()
    if real:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        (folder / "begun.lock").chmod(0o444)
        folder.chmod(0o555)
    said = command("status", "smoke", "--widths", "16", "--depths", "2", ROBUSTKIT_RESULTS=folder)
    assert said.returncode == 0 and "all" in said.stdout, said.stderr


# ------------------------------------------------------------------------------------------------ nobody listens


@pytest.mark.guard(
    4,
    "robustkit/__main__.py",
    "        except OSError:\n            os.dup2",
    "        except ValueError:\n            os.dup2",
)
@pytest.mark.parametrize("broken", ["full", "closed"])
def test_a_print_that_fails_ends_no_run(tmp_path, broken):
    """The first finished run was the last one: its line met a full disk, or a pipe that was closed."""
    folder = {"ROBUSTKIT_RESULTS": str(tmp_path / "results")}
    with contextlib.ExitStack() as stack:
        if broken == "full":
            stdout = stack.enter_context(open("/dev/full", "w"))
        else:
            reading, stdout = os.pipe()
            os.close(reading)
            stack.callback(os.close, stdout)
        ended = subprocess.run(
            [sys.executable, "-m", "robustkit", *ONE_TRAINING], stdout=stdout, stderr=subprocess.PIPE, text=True,
            env=os.environ | folder, cwd=Path(robustkit.__file__).parents[1],
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(store.read_rows(tmp_path / "results" / "rows.jsonl")) == 3


@pytest.mark.guard(
    4,
    "robustkit/sweep/store.py",
    "with contextlib.suppress(OSError, ValueError):\n        print",
    "if True:\n        print",
)
def test_in_a_script_too(monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

    cells = [Cell(width=4, depth=2, seed=seed, epochs=1, points=16) for seed in range(2)]
    monkeypatch.setattr(sys, "stdout", Full())
    assert list(train_missing.run(cells, device="cpu")["status"]) == ["ok"] * 2


@pytest.mark.guard(
    10, "robustkit/sweep/store.py", 'results_folder() / "rows.jsonl"', 'Path(ascii(results_folder())) / "x"'
)
def test_folders_with_spaces_and_letters_of_other_languages_work(tmp_path):
    results = tmp_path / "mein größter Ordner" / "результаты d'été 图"
    ended = command(*ONE_TRAINING, ROBUSTKIT_RESULTS=results)
    assert ended.returncode == 0 and "3 of 3 runs done" in ended.stdout, ended.stderr
    assert [row["status"] for row in store.read_rows(results / "rows.jsonl")] == ["ok"] * 3
