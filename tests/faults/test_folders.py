"""Folders named relative to where a command begins, locales that are not UTF-8, and files that a kill leaves."""

import os
import subprocess
import sys

import pytest

from robustkit.files import ROOT

NAMES = ("ROBUSTKIT_DATA", "ROBUSTKIT_RESULTS", "ROBUSTKIT_FIGURES")


def python(code, folder, **environment):
    """What a new process says that begins in a folder."""
    (folder / "script.py").write_text(code, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_relative_folder_is_the_same_for_a_process_its_children_and_after_a_change_of_folder(tmp_path):
    """Relative ROBUSTKIT_RESULTS and ROBUSTKIT_FIGURES put the figures into notebooks/ and left the report empty."""
    code = """if True:
        import os, subprocess, sys
        from robustkit import files
        os.chdir("/")
        show = "from robustkit.files import *; print(data_folder(), results_folder(), figures_folder('smoke'))"
        exec(show)
        subprocess.run([sys.executable, "-c", show], check=True)
    """
    said = python(code, tmp_path, **{name: f"my/{name}" for name in NAMES}).split()
    paths = [tmp_path / "my" / name for name in NAMES]
    assert said == [*map(str, paths[:2]), str(paths[2] / "smoke")] * 2


def test_a_folder_named_while_running_is_absolute_too(tmp_path, monkeypatch):
    from robustkit.files import results_folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTKIT_RESULTS", "mine")
    assert results_folder() == tmp_path / "mine"


def test_text_is_written_and_read_alike_in_every_locale(tmp_path):
    """In a locale that is not UTF-8 a caption with a kappa ended in UnicodeDecodeError, or came out broken."""
    code = """if True:
        import locale, pandas
        from robustkit import plots
        from robustkit.report import pages
        assert locale.getencoding().lower() not in ("utf-8", "utf8"), locale.getencoding()
        for _ in range(2):
            figure, (ax,) = plots.panels(1)
            plots.style.record(ax, {"κ": [1.0]}, "κ(t)")
            plots.save(figure, "N2", "smoke", None)
        plots.save_table(pandas.DataFrame({"κ": ["σ"]}), "T", "smoke")
        pages.write_html("smoke")
    """
    environment = {"ROBUSTKIT_RESULTS": "r", "ROBUSTKIT_FIGURES": "f", "LC_ALL": "C", "PYTHONUTF8": "0"}
    python(code, tmp_path, **environment, PYTHONCOERCECLOCALE="0")
    index = (tmp_path / "f" / "smoke" / "report" / "index.html").read_text(encoding="utf-8")
    assert "κ(t)" in index and "<td>σ</td>" in index


def test_half_written_files_are_ignored_by_git(tmp_path):
    """A killed command left files in figures/shipped/ that `git add` would have taken."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    paths = ["figures/shipped/.N4a.csv-ab_cd012", "notebooks/.02_width.ipynb-zzzzzzzz", ".README.md-01234567"]
    command = ["git", "-C", str(ROOT), "check-ignore", "--no-index", *paths]
    assert subprocess.run(command, capture_output=True, encoding="utf-8").stdout.split() == paths
