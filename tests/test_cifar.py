"""CIFAR: pixels and classes as the official files hold them; any other file is named and never used or unpacked."""

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robustkit import data as data_module
from robustkit.checks import InputError
from robustkit.data import load_dataset, read_cifar
from robustkit.datasets import DATASETS
from robustkit.profiles import grid
from robustkit.training.measures import measure

FILES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}
FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
SPLITS = {
    "cifar10": {"train": [f"data_batch_{i}.bin" for i in (1, 2, 3, 4, 5)], "test": ["test_batch.bin"]},
    "cifar100": {"train": ["train.bin"], "test": ["test.bin"]},
}
EACH = 3  # images a file
NAMES = pytest.mark.parametrize("name", list(FILES))


def entry(name, content=b"", type=tarfile.REGTYPE, linkname=""):
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.size = type, linkname, len(content)
    return header, content


def pack(entries, packer=gzip.compress):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for header, content in entries:
            archive.addfile(header, io.BytesIO(content))
    return packer(plain.getvalue())


def flipped(content, bit):
    content = bytearray(content)
    content[bit // 8] ^= 1 << (bit % 8)
    return bytes(content)


def tree(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Make CIFAR-10 or CIFAR-100 in small: `contents` of the members by path, `good` the archive, not written yet."""
    folder = tmp_path / "my data"
    monkeypatch.setenv("ROBUSTKIT_DATA", str(folder))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def make(name):
        generator = np.random.default_rng(7)
        images, classes, contents = {}, {}, {}
        for part, files in SPLITS[name].items():
            n = EACH * len(files)
            images[part] = generator.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
            classes[part] = generator.permutation(DATASETS[name].classes - 1 - np.arange(n) % 10)
            coarse = generator.permutation(np.arange(n) % 20)
            for i, file in enumerate(files):
                content = b""
                for j in range(EACH * i, EACH * (i + 1)):
                    content += bytes([coarse[j]] if name == "cifar100" else []) + bytes([classes[part][j]])
                    content += b"".join(images[part][j, channel].tobytes() for channel in range(3))
                contents[f"{FOLDERS[name]}/{file}"] = content
        path = folder / FILES[name]

        def entries(change=None):
            """As in the official archive: a folder, its files in no order, and files that nobody needs."""
            files = sorted((contents | (change or {})).items(), key=lambda item: item[0][::-1])
            readme = entry(f"{FOLDERS[name]}/readme.html", b'<meta HTTP-EQUIV="REFRESH">')
            return [entry(FOLDERS[name], type=tarfile.DIRTYPE), readme, *(entry(*file) for file in files)]

        def declare(content):
            """From now on this is the official archive."""
            digest = hashlib.sha256(content).hexdigest()
            info = dataclasses.replace(
                DATASETS[name], n_train=EACH * len(SPLITS[name]["train"]), n_test=EACH, sha256=digest
            )
            monkeypatch.setitem(DATASETS, name, info)
            file, _, *rest = data_module.ARCHIVES[name]
            monkeypatch.setitem(data_module.ARCHIVES, name, (file, len(content), *rest))

        def write(content):
            folder.mkdir(exist_ok=True)
            path.write_bytes(content)

        good = pack(entries())
        declare(good)
        return SimpleNamespace(
            **{"name": name, "path": path, "folder": folder, "images": images, "classes": classes, "good": good},
            **{"contents": contents, "entries": entries, "declare": declare, "write": write},
        )

    return make


def assert_is(data, arrays):
    for part, x, y in (("train", *arrays[:2]), ("test", *arrays[2:])):
        assert x.dtype == np.uint8 and y.dtype == np.int64
        assert np.array_equal(x, data.images[part]) and np.array_equal(y, data.classes[part])


# ------------------------------------------------------------------------------------------------ what it holds


@NAMES
def test_pixels_and_classes_are_those_of_the_files(small, name):
    data = small(name)
    data.write(data.good)
    assert_is(data, read_cifar(name))
    loaded = load_dataset(name)
    for part, x, y in (("train", loaded.x_train, loaded.y_train), ("test", loaded.x_test, loaded.y_test)):
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert torch.equal(x, torch.from_numpy(data.images[part]).float() / 255)
        assert y.tolist() == data.classes[part].tolist()
    assert [path.name for path in data.folder.iterdir()] == [FILES[name]]  # it is not unpacked


@NAMES
def test_a_resnet_trains_on_it_by_the_recipe_of_table_4(small, name):
    recipe = next(cell for cell in grid("WT4", "paper") if (cell.dataset, cell.init) == (name, "power"))
    data = small(name)
    data.write(data.good)
    cell = dataclasses.replace(recipe, depth=8, width=4, epochs=2, batch_size=2, points=3)
    row = measure(cell)
    assert row["status"] == "ok" and row["cell"]["augment"] == "crop_flip"
    assert len(row["measures"]["test_accuracy_over_time"]) == 2 and row["measures"]["kappa"] > 0


@NAMES
def test_standard_scaling_has_one_mean_a_channel_of_the_training_set(small, name):
    data = small(name)
    for part in data.contents:
        if "test" not in part:  # a dark, faint first channel
            records = np.frombuffer(data.contents[part], np.uint8).reshape(EACH, -1).copy()
            start = records.shape[1] - 3072
            records[:, start : start + 1024] //= 8
            data.contents[part] = records.tobytes()
    data.images["train"][:, 0] //= 8
    content = pack(data.entries())
    data.declare(content)
    data.write(content)
    scaled = load_dataset(name, scaling="standard")
    for channel in range(3):
        train, test = (data.images[part][:, channel] / 255 for part in ("train", "test"))
        close = {"rtol": 1e-5, "atol": 1e-5}
        assert np.allclose(scaled.x_train[:, channel], (train - train.mean()) / train.std(), **close)
        assert np.allclose(scaled.x_test[:, channel], (test - train.mean()) / train.std(), **close)


def test_unit_scaling_divides_each_image_by_its_norm(small):
    data = small("cifar10")
    data.write(data.good)
    scaled = load_dataset("cifar10", scaling="unit")
    norms = np.linalg.norm((data.images["train"] / 255).reshape(15, -1), axis=1)
    assert np.allclose(scaled.x_train, data.images["train"] / 255 / norms[:, None, None, None], rtol=1e-5, atol=0)


@NAMES
def test_pickled_archives_beside_it_are_left_alone(small, name, tmp_path):
    data, marker = small(name), tmp_path / "was unpickled"
    data.write(data.good)
    hostile = pickle.dumps(Marker(marker))
    python = FILES[name].replace("binary", "python")
    (data.folder / python).write_bytes(pack([entry("cifar-10-batches-py/data_batch_1", hostile)]))
    for member in ("cifar-10-batches-py/data_batch_1", "cifar-100-python/train"):
        (data.folder / member).parent.mkdir()
        (data.folder / member).write_bytes(hostile)
    assert_is(data, read_cifar(name))
    assert not marker.exists()


class Marker:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# ------------------------------------------------------------------------------------------------ damaged files


@pytest.fixture
def nothing_is_parsed(small, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an unchecked file was parsed")

    def forbid():
        monkeypatch.setattr(data_module.gzip, "open", refuse)
        monkeypatch.setattr(data_module.tarfile, "open", refuse)

    return forbid


HTML = b"<!DOCTYPE html><html><body>Not found</body></html>"


@pytest.mark.parametrize(("name", "size"), [("cifar10", 170052171), ("cifar100", 168513733)])
def test_without_a_substitute_the_official_archive_is_expected(tmp_path, monkeypatch, name, size):
    monkeypatch.setenv("ROBUSTKIT_DATA", str(tmp_path))
    path = tmp_path / FILES[name]
    path.write_bytes(b"small")
    with pytest.raises(InputError, match=f"{FILES[name]} holds 5 bytes, expected {size}"):
        read_cifar(name)
    with open(path, "r+b") as file:
        file.truncate(size)  # a hole, no bytes on disk
    with pytest.raises(InputError, match=f"SHA-256 is .*, expected {DATASETS[name].sha256}"):
        read_cifar(name)


def test_a_file_that_is_too_large_is_refused_without_reading_it_all(small):
    data = small("cifar10")
    data.write(data.good)
    with open(data.path, "r+b") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=f"holds more bytes, expected {len(data.good)}"):
            read_cifar("cifar10")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_folder_in_its_place_and_an_unreadable_file_are_refused(small, monkeypatch):
    data = small("cifar10")
    data.path.mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be read .*a directory"):
        read_cifar("cifar10")
    data.path.rmdir()
    data.write(data.good)

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(InputError, match="cannot be read .*Permission denied"):
        read_cifar("cifar10")


# ------------------------------------------------------------------------------------------------ hostile archives
# Each of these is declared official, so that size and SHA-256 fit: what is inside must be refused on its own.


def assert_refused(data, content, said, tmp_path):
    data.declare(content)
    data.write(content)
    before = tree(tmp_path)
    with pytest.raises(InputError) as refused:
        read_cifar(data.name)
    assert str(data.path) in str(refused.value) and said in str(refused.value)
    assert tree(tmp_path) == before


LINKS = {
    "a symbolic link": (tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": (tarfile.LNKTYPE, "cifar-10-batches-bin/readme.html"),
    "a link upwards": (tarfile.SYMTYPE, "../../secret"),
    "a pipe": (tarfile.FIFOTYPE, ""),
    "a device": (tarfile.CHRTYPE, ""),
    "a folder": (tarfile.DIRTYPE, ""),
}


@NAMES
@pytest.mark.parametrize("kind", list(LINKS))
def test_a_member_that_is_no_plain_file_is_refused(small, tmp_path, name, kind):
    data = small(name)
    for member in data.contents:
        kept = [(header, content) for header, content in data.entries() if header.name != member]
        # A link that leads to good bytes would be followed by tarfile's own extractfile.
        hidden = entry(f"{FOLDERS[name]}/hidden.bin", data.contents[member])
        lone = entry(member, type=LINKS[kind][0], linkname=LINKS[kind][1])
        to_good = entry(member, type=LINKS[kind][0], linkname=hidden[0].name)
        for link in (lone, to_good) if LINKS[kind][1] else (lone,):
            assert_refused(data, pack([*kept, hidden, link]), member, tmp_path)


@NAMES
@pytest.mark.parametrize("prefix", ["../", "/", "elsewhere/", ""])
def test_a_member_under_another_name_does_not_count(small, tmp_path, name, prefix):
    data = small(name)
    for member in data.contents:
        entries = data.entries()
        for header, _ in entries:
            if header.name == member:
                header.name = prefix + member if prefix else Path(member).name
        assert_refused(data, pack(entries), Path(member).name, tmp_path)


@NAMES
@pytest.mark.parametrize("change", [-1, 1, -3072, 3073, 3074], ids=str)
def test_a_member_of_another_size_is_refused(small, tmp_path, name, change):
    data = small(name)
    for member, content in data.contents.items():
        altered = (content * 3)[: len(content) + change]
        said = f"{member} holds {len(altered)} bytes, expected {len(content)}"
        assert_refused(data, pack(data.entries({member: altered})), said, tmp_path)


@pytest.mark.parametrize(
    ("name", "member", "size"),
    [
        ("cifar10", "cifar-10-batches-bin/data_batch_1.bin", 30730000),
        ("cifar100", "cifar-100-binary/train.bin", 153700000),
    ],
)
def test_the_official_members_have_the_published_sizes(small, monkeypatch, name, member, size):
    official = DATASETS[name]
    data = small(name)
    data.write(data.good)
    small_counts = DATASETS[name]
    monkeypatch.setitem(DATASETS, name, dataclasses.replace(official, sha256=small_counts.sha256))
    with pytest.raises(InputError, match=f"{member} holds .* bytes, expected {size}"):
        read_cifar(name)


@pytest.mark.parametrize(
    ("name", "label", "classes"), [("cifar10", 10, 10), ("cifar10", 255, 10), ("cifar100", 100, 100)]
)
def test_a_label_out_of_range_is_refused(small, tmp_path, name, label, classes):
    data = small(name)
    for member, content in data.contents.items():
        position = len(content) - 3073  # the last image's
        altered = content[:position] + bytes([label]) + content[position + 1 :]
        said = f"it has a label {label}, but {classes} classes"
        assert_refused(data, pack(data.entries({member: altered})), said, tmp_path)


NO_ARCHIVES = {
    "a page": HTML,
    "nothing": b"",
    "gzip of nothing": gzip.compress(b""),
    "gzip of a page": gzip.compress(HTML),
}
NO_ARCHIVES["cut off"] = pack([])[:-9]


@pytest.mark.parametrize("content", NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_archive_is_refused_in_a_sentence(small, tmp_path, content):
    assert_refused(small("cifar10"), content, "it is not the official .tar.gz", tmp_path)


@pytest.mark.parametrize("in_a_member", [True, False])
def test_a_bomb_is_not_decompressed(small, monkeypatch, in_a_member):
    monkeypatch.setattr(data_module, "OTHER_BYTES", 1 << 20)
    data, zeros = small("cifar10"), bytes(64 << 20)
    member = "cifar-10-batches-bin/data_batch_1.bin"
    content = pack(data.entries({member: zeros})) if in_a_member else gzip.compress(zeros, 1)
    del zeros
    data.declare(content)
    data.write(content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more than .* bytes once decompressed"):
            read_cifar("cifar10")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_declared_archive_with_any_bit_of_a_header_flipped_gives_the_same_numbers_or_is_refused(small):
    data, refusals = small("cifar100"), 0
    plain = gzip.decompress(data.good)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        headers = [header.offset for header in archive]
    for offset in headers:
        for bit in range(8 * offset, 8 * (offset + 512), 37):
            content = gzip.compress(flipped(plain, bit), 1)
            data.declare(content)
            data.write(content)
            try:
                assert_is(data, read_cifar("cifar100"))
            except InputError as refused:
                assert "cifar-100-binary.tar.gz cannot be used" in str(refused)
                refusals += 1
    assert refusals > 100


def test_running_out_of_memory_is_not_blamed_on_the_file(small, monkeypatch):
    data = small("cifar10")
    data.write(data.good)

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(data_module.tarfile, "open", full)
    with pytest.raises(MemoryError):
        read_cifar("cifar10")


# ------------------------------------------------------------------------------------------------ downloads


class Answer:
    """What the server says to a request: bytes, then more if `endless`, held back until `released` is set."""

    def __init__(self, content=b"", *, status=200, length=None, endless=False, released=None):
        self.content, self.status, self.length = content, status, len(content) if length is None else length
        self.endless, self.released, self.sent = endless, released, 0

    def write_to(self, handler):
        handler.send_response(self.status)
        if not self.endless:
            handler.send_header("Content-Length", str(self.length))
        handler.end_headers()
        if self.released:
            handler.wfile.write(self.content[: len(self.content) // 2])
            self.released()
            handler.wfile.write(self.content[len(self.content) // 2 :])
        else:
            handler.wfile.write(self.content)
        while self.endless and self.sent < 256 << 20:
            self.sent += handler.wfile.write(bytes(1 << 16))


@pytest.fixture
def server(monkeypatch):
    """A server on this machine in place of the official one: `answer` is what it says, `asked` what it was asked."""
    state = SimpleNamespace(answer=Answer(status=404), asked=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append(self.path)
            with contextlib.suppress(OSError):  # the client hung up
                state.answer.write_to(self)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{web.server_port}/kriz/"
        monkeypatch.setattr(data_module, "MIRRORS", {"cifar10": [state.url], "cifar100": [state.url]})
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        try:
            yield state
        finally:
            web.shutdown()
            thread.join()


@NAMES
def test_a_download_is_checked_and_kept(small, server, name, capsys):
    data = small(name)
    server.answer = Answer(data.good)
    assert_is(data, read_cifar(name))
    assert server.asked == [f"/kriz/{FILES[name]}"]
    assert tree(data.folder) == {Path(FILES[name]): data.good}
    assert f"downloading {server.url}{FILES[name]}" in capsys.readouterr().out
    assert_is(data, read_cifar(name))
    assert len(server.asked) == 1  # the second time nothing is downloaded


def test_a_download_appears_under_its_name_only_whole_and_checked(small, server, monkeypatch):
    data, moved, replace = small("cifar10"), [], data_module.os.replace

    def watched(source, target):
        assert Path(source).read_bytes() == data.good and not data.path.exists()
        replace(source, target)
        moved.append(target)

    server.answer = Answer(data.good, released=lambda: moved.append(data.path.exists()))
    monkeypatch.setattr(data_module.os, "replace", watched)
    read_cifar("cifar10")
    assert moved == [False, data.path]


BAD = {
    "HTML": (lambda good: Answer(HTML), f"it holds {len(HTML)} bytes, expected"),
    "empty": (lambda good: Answer(b""), "it holds 0 bytes, expected"),
    "truncated": (lambda good: Answer(good[:-1]), "bytes, expected"),
    "cut off": (lambda good: Answer(good[:-1], length=len(good)), "1 more expected"),
    "a bit flipped": (lambda good: Answer(flipped(good, 999)), "does not match the known hash"),
    "a byte long": (lambda good: Answer(good + b"\0"), "it holds more than"),
    "not found": (lambda good: Answer(HTML, status=404), "404 Client Error"),
    "unavailable": (lambda good: Answer(status=503), "503 Server Error"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_download_is_refused_and_leaves_nothing_behind(small, server, nothing_is_parsed, case):
    data = small("cifar10")
    answer, said = BAD[case]
    server.answer = answer(data.good)
    nothing_is_parsed()
    with pytest.raises(InputError) as refused:
        load_dataset("cifar10")
    sentence = str(refused.value)
    assert f"it is not in {data.folder} and could not be downloaded" in sentence and said in sentence
    wanted = f"put {FILES['cifar10']} ({len(data.good)} bytes) into {data.folder}, or point ROBUSTKIT_DATA"
    assert sentence.startswith(wanted)
    assert tree(data.folder) == {}


def test_a_download_without_end_is_cut_off(small, server):
    data = small("cifar10")
    server.answer = Answer(data.good, endless=True)
    with pytest.raises(InputError, match=f"it holds more than {len(data.good)} bytes"):
        read_cifar("cifar10")
    assert server.answer.sent < 256 << 20
    assert tree(data.folder) == {}


def test_an_interrupted_download_leaves_nothing_behind(small, server):
    data = small("cifar10")

    def interrupt(*_):
        raise KeyboardInterrupt

    server.answer = Answer(data.good)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(data_module.os, "replace", interrupt)
        read_cifar("cifar10")
    assert tree(data.folder) == {}
    assert_is(data, read_cifar("cifar10"))  # and the next one starts afresh


def test_a_data_folder_that_cannot_be_made_is_named(small, server):
    data = small("cifar10")
    data.folder.write_bytes(b"a file, no folder")
    with pytest.raises(InputError, match=f"is not in {data.folder} and could not be downloaded"):
        read_cifar("cifar10")
    assert data.folder.read_bytes() == b"a file, no folder"


# The package is entered without its __init__, whose imports (torch, seaborn) take seconds and are not needed here.
RACER = """
import hashlib, json, sys, types

url, size, info, folder = json.loads(sys.argv[1])
sys.modules["robustkit"] = types.ModuleType("robustkit")
sys.modules["robustkit"].__path__ = [folder]
from robustkit import data, datasets

file, _, *rest = data.ARCHIVES["cifar10"]
data.ARCHIVES["cifar10"] = (file, size, *rest)
data.MIRRORS["cifar10"] = [url]
datasets.DATASETS["cifar10"] = datasets.DatasetInfo(**info)
print(hashlib.sha256(b"".join(array.tobytes() for array in data.read_cifar("cifar10"))).hexdigest())
"""


def racer(data, server):
    """Another process that reads CIFAR-10 in small from the server."""
    package = str(Path(data_module.__file__).parent)
    known = json.dumps([server.url, len(data.good), dataclasses.asdict(DATASETS["cifar10"]), package])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", RACER, known], **pipes)


def test_two_processes_that_download_at_once_leave_one_good_file(small, server):
    data = small("cifar10")
    both = threading.Barrier(2, timeout=500)
    server.answer = Answer(
        data.good, released=both.wait
    )  # neither is served its second half before both have the first
    racers = [racer(data, server) for _ in range(2)]
    outputs = [racer.communicate(timeout=500) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], outputs
    arrays = (data.images["train"], data.classes["train"], data.images["test"], data.classes["test"])
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    assert [output.splitlines()[-1] for output, _ in outputs] == [digest, digest]
    assert len(server.asked) == 2
    assert tree(data.folder) == {Path(FILES["cifar10"]): data.good}


def test_what_a_killed_download_left_is_removed_a_day_later_and_what_may_be_alive_is_not(small, server):
    data, halfway, released = small("cifar10"), threading.Event(), threading.Event()
    server.answer = Answer(data.good, released=lambda: (halfway.set(), released.wait(60)))
    with racer(data, server) as process:
        assert halfway.wait(60)
        while not list(data.folder.glob("*/*")):  # it has begun to write
            time.sleep(0.01)
        process.kill()
        process.communicate()
    released.set()
    (left,) = data.folder.iterdir()
    (data.folder / "part-1").mkdir()  # a folder of the user's
    old = time.time() - 90000
    for path in (data.folder / "part-1", left):
        os.utime(path, (old, old))
    server.answer = Answer(data.good)
    read_cifar("cifar10")  # the file in the folder was touched a moment ago
    assert set(data.folder.iterdir()) == {left, data.folder / "part-1", data.path}
    for path in (*left.iterdir(), left):
        os.utime(path, (old, old))
    data.path.unlink()
    assert_is(data, read_cifar("cifar10"))
    assert set(data.folder.iterdir()) == {data.folder / "part-1", data.path}
