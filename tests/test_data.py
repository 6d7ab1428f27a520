"""Datasets: what they hold, how they are scaled, and that a damaged or hostile file is named and never used."""

import gzip
import hashlib
import os
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from robustkit import data
from robustkit.cell import Cell, InputError
from robustkit.data import fixed_points, load_dataset, stream_generator

EPS = np.finfo(np.float32).eps

# ------------------------------------------------------------------------------------------------ digits, scaling


def test_digits_are_scikit_learns():
    digits, loaded = load_digits(), load_dataset("digits")
    assert loaded.x_train.shape == (1437, 1, 8, 8) and loaded.x_test.shape == (360, 1, 8, 8)
    assert loaded.x_train.dtype == loaded.x_test.dtype == torch.float32
    assert loaded.y_train.dtype == loaded.y_test.dtype == torch.int64
    pixels = torch.cat([loaded.x_train, loaded.x_test])[:, 0]
    assert torch.equal(pixels, torch.tensor(digits.images / 16, dtype=torch.float32))
    assert torch.equal(torch.cat([loaded.y_train, loaded.y_test]), torch.tensor(digits.target))
    assert pixels.min() == 0 and pixels.max() == 1


def test_unit_scaling_keeps_the_direction():
    raw, unit = load_dataset("digits"), load_dataset("digits", scaling="unit")
    for before, after in ((raw.x_train, unit.x_train), (raw.x_test, unit.x_test)):
        before, after = before.flatten(1).double(), after.flatten(1).double()
        norms = before.norm(dim=1)
        assert torch.allclose(after.norm(dim=1), torch.ones(len(after)).double(), rtol=64 * EPS, atol=0)
        assert torch.allclose((before * after).sum(1), norms, rtol=64 * EPS, atol=0)  # cosine 1


def test_unit_scaling_of_a_zero_point_is_refused(write_npz):
    x_test = np.ones((8, 3), np.float32)
    x_test[5] = 0
    with pytest.raises(InputError, match="scaling is 'unit', but a point of the dataset is zero"):
        load_dataset(write_npz(x_test=x_test), scaling="unit")


@pytest.mark.parametrize("shape", [(3,), (2, 5, 4)], ids=["vectors", "images of two channels"])
def test_standard_scaling_takes_the_mean_of_the_training_set(write_npz, shape):
    generator = np.random.default_rng(4)
    offset = np.array([100.0, -3.0]).reshape(2, 1, 1) if len(shape) == 3 else 5.0
    x_train = (offset + generator.standard_normal((20, *shape))).astype(np.float32)
    x_test = (offset + 2 + 3 * generator.standard_normal((8, *shape))).astype(np.float32)
    scaled = load_dataset(write_npz(x_train=x_train, x_test=x_test), scaling="standard")
    channels = range(2) if len(shape) == 3 else [...]
    for c in channels:
        part = (slice(None), c) if c is not ... else ...
        train, test = x_train[part].astype(np.float64), x_test[part].astype(np.float64)
        # The offset of 100 costs the digits that float32 keeps of it.
        close = {"rtol": 1e-5, "atol": 200 * EPS}
        assert np.allclose(scaled.x_train[part], (train - train.mean()) / train.std(), **close)
        assert np.allclose(scaled.x_test[part], (test - train.mean()) / train.std(), **close)
        assert abs(scaled.x_train[part].double().mean()) < 200 * EPS
        assert abs(scaled.x_train[part].double().std(correction=0) - 1) < 1e-5
        assert scaled.x_test[part].mean() > 1  # the test set is not centred on itself


def test_standard_scaling_of_a_constant_channel_is_refused(write_npz):
    x_train = np.random.default_rng(0).random((20, 2, 4, 4))
    x_train[:, 1] = 0.5
    path = write_npz(x_train=x_train, x_test=np.ones((8, 2, 4, 4)))
    with pytest.raises(InputError, match="a channel of the training set is constant"):
        load_dataset(path, scaling="standard")


def test_double_precision_holds_the_same_points():
    single, double = load_dataset("digits"), load_dataset("digits", dtype=torch.float64)
    assert double.x_train.dtype == torch.float64 and torch.equal(double.x_train.float(), single.x_train)


@pytest.mark.parametrize(
    ("name", "scaling", "said"),
    [
        ("digit", "raw", "dataset is 'digit'.*did you mean 'digits'"),
        ("digits", "units", "scaling is 'units'.*did you mean 'unit'"),
        ("cifar", "raw", "dataset is 'cifar'.*did you mean 'cifar10'"),
        ("nowhere.npz", "raw", "no such file"),
    ],
)
def test_an_unknown_dataset_or_scaling_is_refused(name, scaling, said):
    with pytest.raises(InputError, match=said):
        load_dataset(name, scaling=scaling)


# ------------------------------------------------------------------------------------------------ MNIST, in small


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """MNIST in small: five training and five test images; `contents` by name, none of them written yet."""
    generator = np.random.default_rng(7)
    labels = {"train": np.array([7, 0, 9, 3, 3], np.uint8), "t10k": np.array([1, 2, 0, 4, 8], np.uint8)}
    images = {part: generator.integers(0, 256, (5, 28, 28), dtype=np.uint8) for part in labels}
    contents = {}
    for part in labels:
        sizes = np.array([2051, 5, 28, 28], ">i4").tobytes()
        contents[f"{part}-images-idx3-ubyte"] = sizes + images[part].tobytes()
        contents[f"{part}-labels-idx1-ubyte"] = np.array([2049, 5], ">i4").tobytes() + labels[part].tobytes()
    known = {name: (len(c), hashlib.sha256(c).hexdigest()) for name, c in contents.items()}
    monkeypatch.setattr(data, "MNIST_FILES", known)
    monkeypatch.setenv("ROBUSTKIT_DATA", str(tmp_path / "my data"))
    folder = tmp_path / "my data" / "MNIST" / "raw"

    def write(pack=False):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            path = folder / (f"{name}.gz" if pack else name)
            path.write_bytes(gzip.compress(content) if pack else content)

    return SimpleNamespace(folder=folder, contents=contents, images=images, labels=labels, write=write)


def assert_is_small_mnist(mnist):
    loaded = load_dataset("mnist")
    for part, x, y in (("train", loaded.x_train, loaded.y_train), ("t10k", loaded.x_test, loaded.y_test)):
        assert x.shape == (5, 1, 28, 28)
        assert torch.equal(x[:, 0], torch.from_numpy(mnist.images[part]).float() / 255)
        assert y.tolist() == mnist.labels[part].tolist()


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "gzip"])
def test_mnist_is_read(mnist, pack):
    mnist.write(pack=pack)
    assert_is_small_mnist(mnist)


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def flipped(content, bit):
    content = bytearray(content)
    content[bit // 8] ^= 1 << (bit % 8)
    return bytes(content)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_gzip_copy_with_any_bit_flipped_gives_the_same_numbers_or_is_refused(mnist, name):
    mnist.write(pack=True)
    path = mnist.folder / f"{name}.gz"
    sound, refusals = path.read_bytes(), 0
    for bit in range(0, 8 * len(sound), max(1, len(sound) // 60)):
        path.write_bytes(flipped(sound, bit))
        try:
            assert_is_small_mnist(mnist)
        except InputError as refused:
            assert path.stem in str(refused)
            refusals += 1
    assert refusals > 100  # only a few bytes of the header carry nothing


def test_a_gzip_bomb_is_not_unpacked(mnist):
    mnist.write(pack=True)
    (mnist.folder / f"{IMAGES}.gz").write_bytes(gzip.compress(bytes(32 << 20), 1))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="holds more bytes, expected 3936"):
            load_dataset("mnist")
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.fixture
def mirror(mnist, monkeypatch):
    """In place of the network: `answers` by file, errors raised; `asked` for which file of which mirror."""
    packed = {f"{name}.gz": gzip.compress(content) for name, content in mnist.contents.items()}
    known = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in packed.items()}
    monkeypatch.setattr(data, "MNIST_GZ", known)
    monkeypatch.setitem(data.MIRRORS, "mnist", ["http://first/", "http://second/"])
    state = SimpleNamespace(answers=dict(packed), packed=packed, down=[], asked=[])

    def get(url, output_file, _):
        state.asked.append(url)
        if url.startswith(tuple(state.down)):
            raise ConnectionError("no route")
        Path(output_file).write_bytes(state.answers[url.rpartition("/")[2]])

    monkeypatch.setattr(data, "_downloader", lambda size: get)
    return state


def test_a_download_is_checked_and_kept(mnist, mirror):
    assert_is_small_mnist(mnist)
    assert {path.name: path.read_bytes() for path in mnist.folder.iterdir()} == mirror.packed
    assert mirror.asked == [f"http://first/{name}" for name in mirror.packed]
    assert_is_small_mnist(mnist)
    assert len(mirror.asked) == 4  # the second time nothing is downloaded


def test_only_what_lacks_is_downloaded_and_from_the_mirror_that_is_there(mnist, mirror):
    mnist.write()
    (mnist.folder / IMAGES).unlink()
    mirror.down.append("http://first/")
    assert_is_small_mnist(mnist)
    assert mirror.asked == [f"http://first/{IMAGES}.gz", f"http://second/{IMAGES}.gz"]
    assert {path.name for path in mnist.folder.iterdir()} == {*mnist.contents, f"{IMAGES}.gz"} - {IMAGES}


def test_a_damaged_download_is_refused_and_not_kept(mnist, mirror):
    mirror.answers[f"{IMAGES}.gz"] = flipped(mirror.packed[f"{IMAGES}.gz"], 100)
    with pytest.raises(InputError, match=rf"{IMAGES}.gz\) does not match the known hash"):
        load_dataset("mnist")
    assert list(mnist.folder.iterdir()) == []


def test_what_a_killed_download_left_is_removed_a_day_later(mnist, mirror):
    lefts = [mnist.folder / "robustkit-part-old" / "of pooch", mnist.folder / "robustkit-part-new"]
    for left in lefts:
        left.mkdir(parents=True)
    for path in (lefts[0], lefts[0].parent):
        os.utime(path, (time.time() - 90000,) * 2)
    assert_is_small_mnist(mnist)
    assert {path.name for path in mnist.folder.iterdir()} == {*mirror.packed, "robustkit-part-new"}


# ------------------------------------------------------------------------------------------------ a user's own data


def test_a_float_npz_is_left_as_it_is_and_bytes_are_divided_by_255(write_npz):
    loaded = load_dataset(write_npz())
    assert loaded.x_train.shape == (20, 3) and loaded.x_test.shape == (8, 3)
    with np.load(write_npz()) as arrays:
        assert np.array_equal(loaded.x_train, arrays["x_train"])
        assert np.array_equal(loaded.y_test, arrays["y_test"])
    pixels = np.arange(60, dtype=np.uint8).reshape(20, 3) + 195
    loaded = load_dataset(write_npz(x_train=pixels, x_test=pixels[:8]))
    assert np.allclose(loaded.x_train, pixels / 255, rtol=2 * EPS, atol=0)
    assert np.allclose(loaded.x_test, pixels[:8] / 255, rtol=2 * EPS, atol=0)


def test_a_compressed_npz_is_read(write_npz):
    packed = load_dataset(write_npz("packed.npz", save=np.savez_compressed))
    assert torch.equal(packed.x_test, load_dataset(write_npz()).x_test)


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_named(write_npz, name):
    path = write_npz(without=[name])
    with pytest.raises(InputError, match=f"lacks {name}; it must hold x_train, y_train, x_test, y_test"):
        load_dataset(path)
    with pytest.raises(InputError, match=f"lacks {name}"):
        Cell(width=4, depth=2, dataset=path)


@pytest.mark.filterwarnings("ignore")  # zipfile and numpy may warn about a damaged archive before we refuse it
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_an_npz_with_any_bit_flipped_gives_the_same_numbers_or_is_refused(write_npz, save):
    path = Path(write_npz(save=save))
    good, sound, refusals = path.read_bytes(), load_dataset(str(path)), 0
    other = path.with_name("flipped.npz")
    for bit in range(0, 8 * len(good), 29):
        other.write_bytes(flipped(good, bit))
        try:
            loaded = load_dataset(str(other))
        except InputError as refused:
            assert "flipped.npz" in str(refused)
            refusals += 1
        else:
            assert all(torch.equal(a, b) for a, b in zip(loaded, sound, strict=True))
    assert refusals > 100


FLOATS = np.ones((20, 3), np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        {"y_train": np.arange(19) % 3},
        {"y_test": np.arange(9) % 3},
        {"x_test": np.ones((8, 4), np.float32)},
        {"x_train": np.ones(20, np.float32), "x_test": np.ones(8, np.float32)},
        {"y_train": np.arange(20) % 3 - 1},
        {"y_test": np.arange(8) % 4},  # a class that was never trained
        {"y_test": np.arange(8) % 3 - 1},
        {"y_train": (np.arange(20) % 3).astype(np.float32)},
        {"y_test": (np.arange(8) % 3).astype(np.float32)},
        {"x_train": np.where(np.eye(20, 3) > 0, np.nan, FLOATS)},
        {"x_test": np.where(np.eye(8, 3) > 0, np.inf, FLOATS[:8])},
        {"y_train": (np.arange(20) % 3)[:, None], "y_test": (np.arange(8) % 3)[:, None]},
        {"x_test": np.ones((0, 3), np.float32), "y_test": np.arange(0)},
        {"x_train": np.ones((0, 3), np.float32), "y_train": np.arange(0)},
        {"x_train": np.full((20, 3), "a")},
        {"x_train": 1j * FLOATS},
        {"x_train": np.float32(3)},
        {"y_train": np.int64(3)},
        {"x_train": np.full((20, 3), 1e300)},
        {"x_train": np.full((20, 3), 200, np.uint8)},  # the test points are floats: which scale is meant?
    ],
    ids=[
        *("one label too few", "one label too many", "another dimension", "numbers for points"),
        *("label below 0", "unseen class", "test label below 0", "float labels", "float test labels"),
        *("NaN", "infinity", "labels in a column", "no test points", "no training points"),
        *("text", "complex", "a lone number", "a lone label", "beyond float32", "bytes beside floats"),
    ],
)
def test_arrays_that_make_no_dataset_are_refused(write_npz, arrays):
    with pytest.raises(InputError, match=r"points\.npz"):
        load_dataset(write_npz(**arrays))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kinds", ["i8f4", "u2f8", "i4f2"])
def test_arrays_of_either_byte_order_are_the_same_dataset(write_npz, order, kinds):
    """Big-endian labels ended in a ValueError of torch, big-endian points beside little-endian ones were refused."""
    with np.load(write_npz()) as plain:
        arrays = {name: plain[name].astype(kinds[2:] if name[0] == "x" else kinds[:2]) for name in plain}
    expected = load_dataset(write_npz("native.npz", **arrays))
    for several in (["y_train"], ["x_train"], ["x_test", "y_test"], list(arrays)):
        swapped = {name: arrays[name].astype(arrays[name].dtype.newbyteorder(order)) for name in several}
        loaded = load_dataset(write_npz(f"{several[0]}{len(several)}.npz", **arrays | swapped))
        assert all(torch.equal(a, b) for a, b in zip(loaded, expected, strict=True))


def both(convert):
    """A change of training and test labels, or points, alike."""
    labels, images = {"y_train": np.arange(20) % 3, "y_test": np.arange(8) % 3}, np.random.default_rng(0)
    pixels = {"x_train": images.integers(0, 256, (20, 6, 6, 3)), "x_test": images.integers(0, 256, (8, 6, 6, 3))}
    return {name: convert(array) for name, array in (labels | pixels).items() if convert(array) is not None}


def of_labels(convert):
    return lambda array: convert(array) if array.ndim == 1 else None


def of_points(convert):
    return lambda array: convert(array) if array.ndim > 1 else None


@pytest.mark.parametrize(
    ("found", "said", "way_out"),
    [
        (
            of_labels(lambda y: y + 1),
            "y_train holds the classes 1, 2, 3, but",
            lambda y: np.searchsorted([1, 2, 3], y),
        ),
        (
            of_labels(lambda y: np.array([3, 8, 9])[y]),
            "classes 3, 8, 9, but",
            lambda y: np.searchsorted([3, 8, 9], y),
        ),
        (of_labels(lambda y: y - 1), "classes -1, 0, 1, but must hold 0, 1, 2", lambda y: y + 1),
        (
            of_labels(lambda y: y.astype(float)),
            r"y_train is float64, but .*y_train.astype\(int\)",
            lambda y: y.astype(int),
        ),
        (
            of_labels(lambda y: np.eye(3)[y]),
            r"y_train is \(20, 3\), but .*\(20,\): .*argmax\(1\)",
            lambda y: y.argmax(1),
        ),
        (of_labels(lambda y: y[:, None]), r"y_train is \(20, 1\), but .*ravel\(\)", lambda y: y.ravel()),
        (
            of_points(lambda x: x.astype(np.uint8)),
            r"x_train is \(20, 6, 6, 3\), images with channels last, but must be x_train.transpose\(0, 3, 1, 2\)",
            lambda x: x.transpose(0, 3, 1, 2),
        ),
        (
            of_points(lambda x: x.transpose(0, 3, 1, 2)),
            r"x_train is int64, but must be uint8 \(pixels, which are divided by 255\) or float32",
            lambda x: x.astype(np.uint8),
        ),
    ],
    ids=["from 1", "a gap", "from -1", "float labels", "one-hot", "a column", "channels last", "int64 pixels"],
)
def test_what_could_be_read_in_two_ways_is_refused_with_the_way_out(write_npz, found, said, way_out):
    """Labels 1..10 made 11 outputs, {3, 8} nine; channels last made 32 channels; int64 pixels were not divided."""
    path = write_npz(**both(found))
    for load in (load_dataset, lambda path: Cell(width=4, depth=2, dataset=path)):
        with pytest.raises(InputError, match=f"points.npz': .*{said}"):
            load(path)
    arrays = both(lambda array: None if found(array) is None else way_out(found(array)))
    loaded = load_dataset(write_npz("converted.npz", **arrays))
    assert loaded.y_train.tolist() == [0, 1, 2] * 6 + [0, 1] and loaded.y_test.max() == 2
    if "x_train" in arrays:
        assert loaded.x_train.shape[1:] == (3, 6, 6) and 0.9 < loaded.x_train.max() <= 1


def test_a_test_label_that_was_never_trained_is_named(write_npz):
    with pytest.raises(InputError, match="y_test holds the class 3, which y_train does not hold"):
        load_dataset(write_npz(y_test=np.arange(8) % 4))


def test_images_of_many_channels_are_not_taken_for_channels_last(write_npz):
    arrays = {"x_train": np.ones((20, 8, 4, 4), np.float32), "x_test": np.ones((8, 8, 4, 4), np.float32)}
    assert load_dataset(write_npz(**arrays)).x_train.shape == (20, 8, 4, 4)


# ------------------------------------------------------------------------------------------------ randomness


def draws(*stream):
    return torch.randn(8, generator=stream_generator(*stream))


def test_streams_differ_in_seed_name_and_index():
    streams = [(seed, name, index) for seed in range(5) for name in ("weights", "order") for index in range(3)]
    drawn = torch.stack([draws(*stream) for stream in streams])
    assert len(drawn.unique(dim=0)) == len(streams)
    assert len({stream_generator(seed, "weights").initial_seed() for seed in range(1000)}) == 1000


def test_a_stream_starts_anew_and_ignores_the_global_seed(poisoned_seeds):
    first = draws(3, "weights", 1)
    poisoned_seeds(0)
    assert torch.equal(draws(3, "weights", 1), first)
    poisoned_seeds(1)
    assert torch.equal(draws(3, "weights", 1), first)


def test_the_fixed_points_never_change(poisoned_seeds):
    poisoned_seeds(0)
    points = fixed_points(1000, 20, "test points")
    poisoned_seeds(1)
    assert torch.equal(fixed_points(1000, 20, "test points"), points)
    assert points[:5].tolist() == [74, 341, 436, 915, 485]
    assert len(points.unique()) == 20 and points.min() >= 0 and points.max() < 1000


def test_fewer_points_are_the_first_of_more_and_more_than_all_are_all():
    assert torch.equal(fixed_points(50, 5, "test points"), fixed_points(50, 20, "test points")[:5])
    assert fixed_points(50, 80, "test points").sort().values.tolist() == list(range(50))
    assert not torch.equal(fixed_points(50, 20, "train points"), fixed_points(50, 20, "test points"))
