"""Files that fuzzing damages or forges, and what reading them may lead to.

A maker takes an empty folder and returns `feed`, which reads one input drawn from a generator and says whether it was
"refused" as documented or read "equal" to what was written; anything else raises.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import io
import itertools
import json
import math
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from robustkit import data, datasets
from robustkit.checks import InputError
from robustkit.files import ROOT
from robustkit.sweep import lines as lines_module
from robustkit.sweep import store
from robustkit.training import checkpoint

SHIPPED = ROOT / "results" / "shipped.jsonl"
BOMB = 1 << 30  # bytes that a packed file of a thousandth of that unfolds to
Feed = Callable[[np.random.Generator], str]


# ------------------------------------------------------------------------------------------------ damage


def pick(draw: np.random.Generator, values):
    """One of them."""
    return values[draw.integers(len(values))]


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """The content after one accident, or something else altogether; now and then as it was."""
    at, length = (int(draw.integers(limit)) for limit in (len(content), 40))
    noise, kind = draw.bytes(length), draw.integers(-1, 8)
    if kind == -1:
        return content
    if kind == 0:
        changed = bytearray(content)
        for _ in range(draw.integers(1, 5)):
            changed[draw.integers(len(content))] ^= 1 << draw.integers(8)
        return bytes(changed)
    if kind < 5:  # overwritten, lost, inserted, torn off
        ends = (content[at + length :], content[at + length :], content[at:], b"")[kind - 1]
        return content[:at] + (noise, b"", noise, b"")[kind - 1] + ends
    if kind == 5:  # a piece comes twice
        other = int(draw.integers(len(content)))
        return content[:at] + content[other : other + 10 * length] + content[at:]
    if kind == 6:
        return pick(draw, [b"", b"\0" * 300, b"<!DOCTYPE html><html>Not found</html>\n", pickle.dumps({"a": [1.5]})])
    return draw.bytes(int(draw.integers(600)))


def bomb(start: bytes) -> tuple[bytes, int]:
    """Start and BOMB zeros deflated without ever holding them, and their CRC; each block of zeros is packed alike."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 20)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = functools.reduce(lambda crc, _: zlib.crc32(zeros, crc), range(BOMB >> 20), zlib.crc32(start))
    return first + block * (BOMB >> 20) + packer.flush(), crc


def packed_bomb(start: bytes) -> bytes:
    """A gzip file of BOMB zeros after a start."""
    content, crc = bomb(start)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + content + struct.pack("<LL", crc, (len(start) + BOMB) % 2**32)


@contextlib.contextmanager
def refusal(*kinds) -> Iterator[list]:
    """A list that holds what was said if the block refused its input."""
    said = []
    try:
        yield said
    except kinds as error:
        said.append(str(error) or "no words")


def same(a, b) -> bool:
    """Whether two lists of arrays are equal to the bit."""
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


@contextlib.contextmanager
def attribute(thing, name: str, value) -> Iterator[None]:
    """Another value of an attribute for a while."""
    before = getattr(thing, name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        setattr(thing, name, before)


@contextlib.contextmanager
def environment(name: str, value) -> Iterator[None]:
    """Another value of an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = str(value)
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


# ------------------------------------------------------------------------------------------------ rows


def closed(body: bytes) -> bytes:
    """A line with a CRC that fits."""
    return body + b', "crc": "%08x"}' % zlib.crc32(body)


def shipped_lines() -> list[bytes]:
    """Some real rows, the shorter ones."""
    return sorted(SHIPPED.read_bytes().splitlines(), key=len)[:200]


FORGED = [
    *(b'{"schema": 1, "a": NaN', b'{"schema": 1, "a": [-Infinity]', b'{"schema": 1, "a": ' + b"[" * 10**5),
    *(
        b'{"schema": 1, "key": "a", "status": "ok", "cell": {}',
        b'{"key": "a", "status": "ok", "schema": 1, "cell": 3',
    ),
    *(b'{"schema": 2, "key": "a"', b'{"key": "a"', b'{"schema": 1, "a": 1' + b"0" * 5000, b"[1", b"", b"{"),
]


def decoder(_: Path) -> Feed:
    """One line: torn, altered, or with a CRC that fits what it should not."""
    lines = shipped_lines()

    def feed(draw):
        line = pick(draw, lines)
        changed = damaged(line, draw)
        if close := draw.integers(3) == 0:
            changed = closed(pick(draw, FORGED) if draw.integers(2) else damaged(line[:-20], draw))
        with refusal(ValueError) as refused:
            row = lines_module.decode(changed)
        with refusal(ValueError) as also_refused:
            head = lines_module.decode_head(changed, None, set())
        assert also_refused == refused, "the two readers differ"
        if refused:
            return "refused"
        assert head[:2] == (row["key"], row["status"])
        assert isinstance(row, dict) and not {"nan", "[-inf]"} & set(map(str, row.values())) and row["schema"] == 1
        assert close or row == json.loads(line), "another row"
        return "equal"

    return feed


def row_files(folder: Path) -> Feed:
    """A file of five rows, damaged at one place: each row that was not touched is read, as it was."""
    lines, path = shipped_lines(), folder / "rows.jsonl"

    def feed(draw):
        there = [pick(draw, lines) for _ in range(5)]
        changed = damaged(b"\n".join(there) + b"\n", draw)
        path.write_bytes(changed)
        with warnings.catch_warnings(record=True) as caught, refusal(InputError) as refused:
            warnings.simplefilter("always")
            rows = store.read_rows(path)
            whole = [line.rstrip(b"\r") for line in changed.split(b"\n")]
            assert rows == [json.loads(line) for line in whole if line in there], "other rows"
            lost = [line for line in whole if line.strip() and line not in there]
            assert bool(caught) == bool(lost), "damage that was not named"
        return "refused" if refused or caught else "equal"

    return feed


# ------------------------------------------------------------------------------------------------ a user's .npz


class Marker:
    """Makes a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def npz(arrays: dict[str, np.ndarray], save=np.savez) -> bytes:
    """The bytes of an archive."""
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def npy(shape, kind, body: bytes) -> bytes:
    """An array's file with any header."""
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + body


SHAPES = [
    *(
        (20, 3),
        (8, 3),
        (20,),
        (8,),
        (),
        (20, 0),
        (0, 3),
        (-1, 3),
        (20, 3, 1, 1),
        (1,) * 70,
        (2.5, 3),
        ("20", 3),
        None,
    ),
    *((10**12,), (10**9, 10**9), (2**62, 4), (20, 10**11)),
]
KINDS = [
    *("<f4", "<f8", ">f4", "<f2", "<f16", "<i8", "|u1", "<u8", "|b1", "<c8", "<M8[s]", [("a", "<f4")]),
    *("|O", "<U9", "|S0", "|V1000000000", "no", 3),
]
NAMES = ("x_train", "y_train", "x_test", "y_test")


def small_data() -> dict[str, np.ndarray]:
    """20 training and 8 test points in three classes."""
    noise = np.random.default_rng(0)
    x_train, x_test = (noise.standard_normal((n, 3)).astype(np.float32) for n in (20, 8))
    return dict(zip(NAMES, (x_train, np.arange(20) % 3, x_test, np.arange(8) % 3), strict=True))


def npz_bomb(arrays: dict[str, np.ndarray]) -> bytes:
    """An archive of a megabyte whose training points are BOMB zeros."""
    file, header = io.BytesIO(), npy((20, BOMB // 80), "<f4", b"")
    content, crc = bomb(header)
    with zipfile.ZipFile(file, "w") as archive:
        for name in NAMES[1:]:
            archive.writestr(f"{name}.npy", npy(arrays[name].shape, arrays[name].dtype.str, arrays[name].tobytes()))
        archive.writestr("x_train.npy", content)
        points = archive.getinfo("x_train.npy")  # its entry in the directory, which is written last, tells what it is
        points.compress_type, points.file_size, points.CRC = zipfile.ZIP_DEFLATED, len(header) + BOMB, crc
    return file.getvalue()


def own_data(folder: Path) -> Feed:
    """An archive damaged; or sound as an archive, with arrays that are not what they say."""
    arrays, marker, number = small_data(), folder / "was unpickled", itertools.count()
    files, large = [npz(arrays), npz(arrays, np.savez_compressed)], npz_bomb(arrays)
    hostile = np.array([Marker(marker)] * 20, dtype=object)

    def forged(draw):
        if draw.integers(40) == 0:
            return large
        if draw.integers(20) == 0:
            return npz(arrays | {pick(draw, NAMES): hostile})
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", pick(draw, [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            for name in NAMES:
                body = arrays[name].tobytes()
                content = npy(arrays[name].shape, arrays[name].dtype.str, body)
                if draw.integers(3) == 0:
                    kind, shape = pick(draw, [arrays[name].dtype.str, pick(draw, KINDS)]), pick(draw, SHAPES)
                    content = npy(shape, kind, pick(draw, [body, draw.bytes(240), b""]))
                archive.writestr(f"{name}.npy", damaged(content, draw) if draw.integers(6) == 0 else content)
        return file.getvalue()

    def feed(draw):
        damage = draw.integers(2)
        content = damaged(pick(draw, files), draw) if damage else forged(draw)
        path = folder / f"{next(number)}.npz"
        path.write_bytes(content)
        with warnings.catch_warnings(), refusal(InputError) as refused:
            warnings.simplefilter("ignore")  # zipfile's and numpy's own, about the damage
            (found, digest), info = datasets.read_npz(str(path)), datasets.dataset_info(str(path))
            assert digest == info.sha256 == hashlib.sha256(content).hexdigest()
            x_train, y_train, x_test, y_test = found
            assert info.n_train == len(x_train) == len(y_train) > 0 and info.n_test == len(x_test) == len(y_test) > 0
            assert math.prod(info.shape) > 0 and y_train.min() >= 0 and info.classes == int(y_train.max()) + 1
            assert np.isfinite(x_train).all() and np.isfinite(x_test).all(), "not finite"
            assert not damage or same(found, [arrays[name] for name in NAMES]), "other numbers"
        path.unlink()
        assert not marker.exists(), "something was unpickled"
        return "refused" if refused else "equal"

    return feed


# ------------------------------------------------------------------------------------------------ archives


def mnist(folder: Path) -> Feed:
    """Small files in place of MNIST's four, one of them damaged, plain or packed."""
    noise, raw = np.random.default_rng(0), folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    contents = {name: noise.bytes(16 + 784 * 2 if "images" in name else 8 + 2) for name in data.MNIST_FILES}
    known = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()}
    packed = {name: gzip.compress(content, mtime=0) for name, content in contents.items()}
    large = packed_bomb(b"")

    def read():
        with attribute(data, "MNIST_FILES", known), environment("ROBUSTKIT_DATA", folder):
            return data._mnist()

    for name, content in contents.items():
        (raw / name).write_bytes(content)
    good = read()

    def feed(draw):
        name = pick(draw, list(contents))
        path = raw / name
        if draw.integers(2):
            path.write_bytes(damaged(contents[name], draw))
        else:
            path.unlink()
            path.with_name(f"{name}.gz").write_bytes(damaged(packed[name], draw) if draw.integers(10) else large)
        with refusal(InputError) as refused:
            assert same(read(), good), "other numbers"
        path.with_name(f"{name}.gz").unlink(missing_ok=True)
        path.write_bytes(contents[name])
        return "refused" if refused else "equal"

    return feed


def cifar_archives(_: Path) -> Feed:
    """A small .tar.gz: damaged as it lies, or packed again after one byte of a header was changed."""
    noise = np.random.default_rng(0)
    contents = {f"folder/{name}.bin": noise.bytes(700) for name in ("one", "two", "three")}
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in ({"folder/readme": b"read me"} | contents).items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    plain = plain.getvalue()
    packed, sizes = gzip.compress(plain, mtime=0), {name: len(content) for name, content in contents.items()}
    headers = [at for at in range(0, len(plain), 512) if plain[at + 257 :].startswith(b"ustar")]
    large = packed_bomb(plain)

    def forged(draw):
        if draw.integers(10) == 0:
            return large
        changed = bytearray(plain)
        changed[pick(draw, headers) + draw.integers(512)] = draw.integers(256)
        return gzip.compress(changed, 1, mtime=0)

    def feed(draw):
        with refusal(InputError) as refused:
            found = data._members(damaged(packed, draw) if draw.integers(2) else forged(draw), sizes)
            assert found == contents, "other bytes"
        return "refused" if refused else "equal"

    return feed


def checkpoints(folder: Path) -> Feed:
    """The newest checkpoint damaged: then the one before is used, and the damage named."""
    tensors = {"model.weight": torch.arange(12.0).reshape(3, 4), "generator.order": torch.Generator().get_state()}

    def feed(draw):
        with environment("ROBUSTKIT_RESULTS", folder):
            newest, before = checkpoint.paths("name", "cpu")
            if not before.exists():
                for step in (5, 10):
                    checkpoint.save("name", checkpoint.Saved(step, tensors, {"losses": [step / 3]}), "cpu")
            whole = newest.read_bytes()
            newest.write_bytes(changed := damaged(whole, draw))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                (found,) = checkpoint.load({"name": checkpoint.Saved(0, tensors, {})}, "cpu")
            newest.write_bytes(whole)
        step = 10 if changed == whole else 5
        assert found.step == step and found.notes == {"losses": [step / 3]} and bool(caught) == (step == 5)
        assert all(torch.equal(found.state[name], value) for name, value in tensors.items()), "other numbers"
        return "refused" if caught else "equal"

    return feed
