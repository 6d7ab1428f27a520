"""Data files that are missing, damaged, swapped or hostile: refused by size and SHA-256, never unpickled."""

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from robustkit import data
from robustkit.checks import InputError
from robustkit.data import load_dataset, read_cifar
from robustkit.datasets import DATASETS

HTML = b"<!DOCTYPE html><html><body>Not found</body></html>"


def flipped(content, bit):
    content = bytearray(content)
    content[bit // 8] ^= 1 << (bit % 8)
    return bytes(content)


def files_in(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


# ------------------------------------------------------------------------------------------------ two small datasets


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder."""
    monkeypatch.setenv("ROBUSTKIT_DATA", str(tmp_path / "my data"))
    return tmp_path / "my data"


def mnist_files():
    """MNIST in small, five images each: content by name."""
    generator, contents = np.random.default_rng(7), {}
    for part in ("train", "t10k"):
        pixels, labels = generator.integers(0, 256, 5 * 784, np.uint8), generator.integers(0, 10, 5, np.uint8)
        contents[f"{part}-images-idx3-ubyte"] = np.array([2051, 5, 28, 28], ">i4").tobytes() + pixels.tobytes()
        contents[f"{part}-labels-idx1-ubyte"] = np.array([2049, 5], ">i4").tobytes() + labels.tobytes()
    return contents


def entry(name, content=b"", type=tarfile.REGTYPE, linkname=""):
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.size = type, linkname, len(content)
    return header, content


def pack(entries):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for header, content in entries:
            archive.addfile(header, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), 0)  # stored: archives with the same members have the same size


def cifar_entries(name, swap=()):
    """CIFAR in small, three images a file; the contents of two of its files may be swapped."""
    generator, (_, _, label_bytes, train, test) = np.random.default_rng(7), data.ARCHIVES[name]
    contents = {}
    for member in (*train, *test):
        pixels, labels = generator.integers(0, 256, (3, 3072), np.uint8), generator.integers(0, 10, (3, 1), np.uint8)
        contents[member] = np.hstack([*[labels] * label_bytes, pixels]).tobytes()
    if swap:
        contents[swap[0]], contents[swap[1]] = contents[swap[1]], contents[swap[0]]
    return [entry(*item) for item in contents.items()]


def declare(monkeypatch, name, content):
    """From now on this is the official archive of CIFAR."""
    file, _, label_bytes, train, test = data.ARCHIVES[name]
    counts = {"n_train": 3 * len(train), "n_test": 3 * len(test)}
    info = dataclasses.replace(DATASETS[name], sha256=hashlib.sha256(content).hexdigest(), **counts)
    monkeypatch.setitem(DATASETS, name, info)
    monkeypatch.setitem(data.ARCHIVES, name, (file, len(content), label_bytes, train, test))


@pytest.fixture(params=["mnist images", "mnist labels", "mnist labels packed", "cifar10", "cifar100"])
def official(request, folder, monkeypatch):
    """A small dataset in the place of the official one: its file that will be damaged, and how to write it."""
    name, _, which = request.param.partition(" ")
    packed = which.endswith("packed")
    if name == "mnist":
        contents, folder = mnist_files(), folder / "MNIST" / "raw"
        known = {file: (len(content), hashlib.sha256(content).hexdigest()) for file, content in contents.items()}
        monkeypatch.setattr(data, "MNIST_FILES", known)
        file, swapped = (f"{part}-{which[:6]}-idx{3 if which == 'images' else 1}-ubyte" for part in ("train", "t10k"))
        other = contents[swapped]
    else:
        file, train, test = (data.ARCHIVES[name][i] for i in (0, 3, 4))
        contents, other = {file: pack(cifar_entries(name))}, pack(cifar_entries(name, (train[0], test[0])))
        declare(monkeypatch, name, contents[file])
    path = folder / (f"{file}.gz" if packed else file)

    def write(content):
        """The dataset, with this content in one file."""
        folder.mkdir(parents=True, exist_ok=True)
        for each, its in (contents | {file: content}).items():
            (folder / (f"{each}.gz" if packed else each)).write_bytes(gzip.compress(its) if packed else its)

    return SimpleNamespace(name=name, path=path, good=contents[file], other=other, write=write)


@pytest.fixture
def not_parsed(monkeypatch):
    """From now on it fails to parse this content: to see it as numbers, or to open an archive of CIFAR."""

    def forbid(name, content):
        frombuffer = np.frombuffer

        def refuse(*arguments, **options):
            if name != "mnist" or arguments[0] == content:  # MNIST has four files, each checked before it is parsed
                raise AssertionError("an unchecked file was parsed")
            return frombuffer(*arguments, **options)

        monkeypatch.setattr(np, "frombuffer", refuse)
        if name != "mnist":
            monkeypatch.setattr(gzip, "open", refuse)
            monkeypatch.setattr(tarfile, "open", refuse)

    return forbid


# ------------------------------------------------------------------------------------------------ damaged, missing

DAMAGES = {
    "truncated": lambda good, other: good[: len(good) // 2],
    "a byte short": lambda good, other: good[:-1],
    "a byte long": lambda good, other: good + b"\0",
    "empty": lambda good, other: b"",
    "HTML": lambda good, other: HTML,
    "HTML of its size": lambda good, other: HTML[: len(good)].ljust(len(good)),
    "wrong magic": lambda good, other: bytes([good[0] ^ 0xFF]) + good[1:],
    "one bit flipped": lambda good, other: flipped(good, 4 * len(good)),
    "the last bit flipped": lambda good, other: flipped(good, 8 * len(good) - 1),
    "another in its place": lambda good, other: other,
}


@pytest.mark.guard(21, "robustkit/data.py", "if len(content) != size:", "if False:")
@pytest.mark.guard(21, "robustkit/data.py", "_check_hash(path, content, sha256)", "pass")
@pytest.mark.guard(21, "robustkit/data.py", "if actual != expected:", "if False:")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_size_and_hash_before_it_is_parsed(official, not_parsed, damage):
    official.write(official.good)
    load_dataset(official.name)
    content = DAMAGES[damage](official.good, official.other)
    official.write(content)
    before = files_in(official.path.parent)
    not_parsed(official.name, content)
    with pytest.raises(InputError) as refused:
        load_dataset(official.name)
    said, size = str(refused.value), len(official.good)
    assert str(official.path) in said and "delete it and run again" in said
    if len(content) == size:
        actual, expected = (hashlib.sha256(each).hexdigest() for each in (content, official.good))
        assert f"is damaged: SHA-256 is {actual}, expected {expected}" in said
    else:
        assert f"holds {'more' if len(content) > size else len(content)} bytes, expected {size}" in said
    assert files_in(official.path.parent) == before  # they are the user's to delete


@pytest.mark.guard(21, "robustkit/data.py", '_check_hash("scikit-learn\'s digits",', "print(")
def test_digits_that_are_not_the_known_ones_are_refused(monkeypatch):
    altered = load_digits()
    altered.images[3, 4, 4] += 1
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: altered)
    with pytest.raises(InputError, match=f"digits is damaged: SHA-256 is .*, expected {DATASETS['digits'].sha256}"):
        load_dataset("digits")


@pytest.fixture
def offline(monkeypatch):
    """Every download goes to a port of this machine where nobody listens."""
    with http.server.HTTPServer(("127.0.0.1", 0), None) as gone:
        url = f"http://127.0.0.1:{gone.server_port}/"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(data, "MIRRORS", dict.fromkeys(data.MIRRORS, [url]))


@pytest.mark.guard(21, "robustkit/data.py", "put {wanted} into {folder}", "put them there")
@pytest.mark.guard(21, "robustkit/data.py", "it is not in {folder} and", "it")
@pytest.mark.parametrize(
    ("name", "place", "files"),
    [
        ("mnist", "MNIST/raw", list(data.MNIST_GZ)),
        ("cifar10", "", ["cifar-10-binary.tar.gz"]),
        ("cifar100", "", ["cifar-100-binary.tar.gz"]),
    ],
)
def test_offline_it_says_which_file_goes_where(folder, offline, name, place, files):
    with pytest.raises(InputError) as refused:
        load_dataset(name)
    said = str(refused.value)
    assert said.startswith(f"put {files[0]} (") and f" into {folder / place}, or point ROBUSTKIT_DATA at" in said
    assert f"it is not in {folder / place} and could not be downloaded" in said
    assert all(file in said for file in files)
    assert not any(path.is_file() or "part" in path.name for path in folder.rglob("*"))


@pytest.fixture
def dripping(monkeypatch):
    """A server that says how long a file is, and then a byte of it now and then: so many seconds lie between two."""
    pause, stop = SimpleNamespace(seconds=0.05), threading.Event()

    class Drip(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "10000000")
            self.end_headers()
            with contextlib.suppress(OSError):
                while not stop.wait(pause.seconds):
                    self.wfile.write(b"x")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drip) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setitem(data.MIRRORS, "mnist", [f"http://127.0.0.1:{server.server_port}/"])
        yield pause
        stop.set()
        server.shutdown()


@pytest.mark.parametrize(("pause", "said"), [(0.05, "slower than 1e\\+07 bytes a second"), (600, "timed out")])
def test_a_server_that_drips_or_is_silent_is_given_up(folder, dripping, monkeypatch, pause, said):
    """A server that sent a byte a minute kept the command waiting for ever."""
    dripping.seconds = pause
    monkeypatch.setattr(data, "SILENCE", 1)
    monkeypatch.setattr(data, "SLOWEST", 1e7)
    with pytest.raises(InputError, match=f"could not be downloaded from http://127.*{said}"):
        load_dataset("mnist")
    assert not any(path.is_file() for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------------ hostile files


class Marker:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.guard(22, "robustkit/datasets.py", "allow_pickle=False", "allow_pickle=True")
@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_an_object_array_is_never_unpickled(write_npz, tmp_path, name):
    marker = tmp_path / "was unpickled"
    hostile = np.array([Marker(marker)] * 8, dtype=object)
    with pytest.raises(InputError, match=r"points\.npz.* is not a plain .npz archive"):
        load_dataset(write_npz(**{name: hostile}))
    assert not marker.exists()


@pytest.mark.guard(22, "robustkit/datasets.py", "allow_pickle=False", "allow_pickle=True")
def test_a_file_that_is_not_an_npz_is_refused_and_never_unpickled(tmp_path):
    marker, path = tmp_path / "was unpickled", tmp_path / "points.npz"
    np.save(tmp_path / "one.npy", np.ones(3))
    contents = {
        "a pickle": pickle.dumps(Marker(marker)),
        "empty": b"",
        "HTML": HTML,
        "one array": (tmp_path / "one.npy").read_bytes(),
        "an empty zip": b"PK\x05\x06" + bytes(18),
    }
    for content in contents.values():
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"points\.npz"):
            load_dataset(str(path))
        assert not marker.exists()


LINK, HARD_LINK = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.guard(22, "robustkit/data.py", "if not inside or not (entry.isreg() or entry.isdir()):", "if False:")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    "extra",
    [
        entry("../escaped.bin", b"out"),
        entry("cifar-10-batches-bin/../../escaped.bin", b"out"),
        entry("../escaped", type=tarfile.DIRTYPE),
        entry("/escaped.bin", b"out"),
        entry("cifar-10-batches-bin/link", type=LINK, linkname="/"),
        entry("cifar-10-batches-bin/link", type=LINK, linkname="../../escaped.bin"),
        entry("escaped", type=HARD_LINK, linkname="../../escaped"),
        entry("a pipe", type=tarfile.FIFOTYPE),
    ],
    ids=lambda extra: f"{extra[0].name} {extra[0].linkname}".strip(),
)
def test_an_archive_with_an_entry_that_leads_elsewhere_is_refused(folder, tmp_path, monkeypatch, name, extra):
    """Were it the official one: size and SHA-256 fit, and what is inside must be refused on its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder.mkdir()
    path = folder / data.ARCHIVES[name][0]
    for entries in ([extra, *cifar_entries(name)], [*cifar_entries(name), extra]):
        content = pack(entries)
        declare(monkeypatch, name, content)
        path.write_bytes(content)
        with pytest.raises(InputError) as refused:
            read_cifar(name)
        assert str(path) in str(refused.value) and repr(extra[0].name) in str(refused.value)
        assert files_in(tmp_path) == {folder: False, path: content, tmp_path / "here": False}
        assert not Path("/escaped.bin").exists()
