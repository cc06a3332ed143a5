"""The registry: what a name leads to, and what is said when it leads nowhere."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from common.data import DATASETS, Dataset, HashedPieces, inflate, load_dataset
from common.data import datasets as module
from common.data import digits as digits_module
from common.errors import DataError, SettingsError
from common.task.known import task_of


def arrays(**changes: Any) -> dict[str, Any]:
    """Return the arrays of a good file: six training and four test images."""
    good = {
        "x_train": np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8),
        "y_train": np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8),
        "x_test": np.zeros((4, 8, 8), dtype=np.uint8),
        "y_test": np.array([0, 1, 2, 2]),
    }
    return {k: v for k, v in (good | changes).items() if v is not None}


def refused(tmp_path: Path, name: str = "mine", **changes: Any) -> str:
    np.savez(tmp_path / f"{name}.npz", **arrays(**changes))
    with pytest.raises(DataError) as error:
        load_dataset(name, tmp_path)
    assert str(tmp_path / f"{name}.npz") in str(error.value)
    return str(error.value)


def test_digits() -> None:
    digits = load_dataset("digits", "")
    assert digits.input_shape == (1, 8, 8)
    assert digits.x_train.shape == (1438, 8, 8)
    assert digits.x_train.dtype == np.uint8
    assert digits.y_train.dtype == np.int64
    # 1797 digits of 174 to 183 per class, a fifth of each for the test.
    assert np.bincount(digits.y_test).tolist() == [
        *(36, 36, 35, 37, 36, 36, 36, 36, 35, 36)
    ]
    x = digits.normalise(digits.x_train)
    assert x.shape == (1438, 1, 8, 8)
    assert (x.min(), x.max()) == (0, 1)
    assert load_dataset("digits", "") is digits


def test_digits_are_those_of_scikit_learn() -> None:
    read = digits_module._bundled()
    assert read is not None
    asked = digits_module._by_scikit_learn()
    for mine, theirs in zip(read, asked, strict=True):
        assert mine.dtype == theirs.dtype
        assert np.array_equal(mine, theirs)


def test_digits_where_scikit_learn_keeps_them_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(digits_module, "find_spec", lambda _: None)
    assert digits_module._bundled() is None
    again = digits_module.read_digits()
    assert np.array_equal(again.x_test, load_dataset("digits", "").x_test)


def test_no_heavy_import() -> None:
    code = (
        "import sys; from common.data import load_dataset; load_dataset('digits', '');"
        "bad = {'torch', 'torchvision', 'flwr', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_of_the_users(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    mine = load_dataset("mine", str(tmp_path))
    assert (mine.name, mine.num_classes, mine.input_shape) == ("mine", 3, (1, 8, 8))
    assert mine.y_train.dtype == np.int64
    # 0, ..., 255 and 0, ..., 127: their mean, and as image files count brightness.
    x = np.r_[np.arange(256), np.arange(128)]
    assert mine.normaliser.scale == 255
    expected = (255 - x.mean()) / x.std()
    brightest = np.full((1, 8, 8), 255, np.uint8)
    np.testing.assert_allclose(mine.normalise(brightest), expected, rtol=1e-5)
    assert mine.group_train is None


def test_a_column_of_any_type_and_unit_gets_mean_0_and_std_1(tmp_path: Path) -> None:
    base = np.random.default_rng(0).normal(size=(200, 3))
    columns = base * [1e-4, 4096, 3] + [0, 9000, -50]
    for kind in (np.float64, np.float16, np.int16, np.int64, ">f4"):
        x: Any = columns.astype(kind)
        y = np.arange(200) % 2
        fields = {"x_train": x, "x_test": x[:4], "y_train": y, "y_test": y[:4]}
        np.savez(tmp_path / "mine.npz", **arrays(**fields))
        mine = load_dataset("mine", tmp_path)
        out = mine.normalise(mine.x_train)
        np.testing.assert_allclose(out.mean(0), 0, atol=2e-4)
        whole = np.issubdtype(x.dtype, np.integer)
        # In whole numbers the first column is 0 everywhere: constant, and stays 0.
        np.testing.assert_allclose(out.std(0), [0 if whole else 1, 1, 1], atol=2e-3)


def test_truth_values_are_numbers(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((6, 5)) > 0.5
    np.savez(tmp_path / "mine.npz", **arrays(x_train=x, x_test=x[:4]))
    mine = load_dataset("mine", tmp_path)
    assert mine.x_train.dtype == np.bool_
    np.testing.assert_allclose(mine.normalise(x).mean(0), 0, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float64, np.int64])
def test_a_small_change_of_large_numbers_is_kept(tmp_path: Path, kind: type) -> None:
    small = np.random.default_rng(0).integers(-50, 50, (6, 1))
    x: Any = (small + 1_700_000_000).astype(kind)
    np.savez(tmp_path / "mine.npz", **arrays(x_train=x, x_test=x[:4]))
    mine = load_dataset("mine", tmp_path)
    expected = (small - small.mean()) / small.std()
    np.testing.assert_allclose(mine.normalise(mine.x_train), expected, atol=1e-4)
    plain = small.astype(np.float64) + 7
    np.savez(tmp_path / "small.npz", **arrays(x_train=plain, x_test=plain[:4]))
    assert load_dataset("small", tmp_path).x_train.dtype == np.float32


def test_a_missing_number_of_a_table_is_the_mean(tmp_path: Path) -> None:
    x = np.array([[1.0, 5], [3, np.nan], [np.nan, np.nan], [5, 7], [3, 6], [3, 6]])
    np.savez(tmp_path / "mine.npz", **arrays(x_train=x, x_test=x[:4]))
    mine = load_dataset("mine", tmp_path)
    assert list(mine.normaliser.mean) == [3, 6]
    out = mine.normalise(mine.x_train)
    assert (out[2] == 0).all() and out[1].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("values", "kind", "full"),
    [
        ([0, 16], "uint8", 255),
        ([0, 9], "uint16", 65535),
        ([0, 1], "float32", 1),
        ([0, 255], "float32", 255),
        ([-2, 3], "float32", 1),
    ],
)
def test_what_full_brightness_is(
    values: list[int], kind: str, full: float, tmp_path: Path
) -> None:
    images = np.resize(np.array(values, kind), (6, 4, 4))
    np.savez(tmp_path / "mine.npz", **arrays(x_train=images, x_test=images[:4]))
    mine = load_dataset("mine", tmp_path)
    assert mine.normaliser.scale == full
    out = mine.normalise(mine.x_train)
    np.testing.assert_allclose((out.mean(), out.std()), (0, 1), atol=1e-5)


def test_each_colour_has_a_scale(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 200, (6, 8, 8, 3)).astype(np.uint8)
    x[..., 2] //= 20
    for name, layout in (("last", x), ("first", np.moveaxis(x, -1, 1))):
        np.savez(tmp_path / f"{name}.npz", **arrays(x_train=layout, x_test=layout[:4]))
        data = load_dataset(name, tmp_path)
        out = data.normalise(data.x_train)
        np.testing.assert_allclose(out.mean((0, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(out.std((0, 2, 3)), 1, atol=1e-5)


@pytest.mark.parametrize("stored", [(50, 6), (6, 50)])
def test_windows_of_a_series(stored: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    channels = rng.normal(size=(6, 6, 50)) * 10.0 ** np.arange(-3, 3)[:, None] + 5
    x = channels if stored == (6, 50) else channels.transpose(0, 2, 1)
    np.savez(tmp_path / "mine.npz", **arrays(x_train=x, x_test=x[:4]))
    mine = load_dataset("mine", tmp_path, series=True)
    assert mine.input_shape == (6, 50)
    out = mine.normalise(mine.x_train)
    np.testing.assert_allclose(out.mean((0, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(out.std((0, 2)), 1, atol=1e-3)
    expected = (channels - channels.mean((0, 2))[:, None]) / channels.std((0, 2))[
        :, None
    ]
    np.testing.assert_allclose(out, expected, atol=1e-2)
    # Without a backbone for series they are images; a file can say otherwise.
    assert load_dataset("mine", tmp_path).input_shape == (1, *stored)
    axes = "steps,channels" if stored == (50, 6) else "channels,steps"
    np.savez(tmp_path / "says.npz", **arrays(x_train=x, x_test=x[:4], axes=axes))
    assert load_dataset("says", tmp_path).input_shape == (6, 50)


def test_a_window_as_long_as_wide_must_say_what_it_is(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 8, 8))
    fields = arrays(x_train=x, x_test=x[:4])
    np.savez(tmp_path / "mine.npz", **fields)
    with pytest.raises(DataError, match=r"x_train.*say which in an array axes"):
        load_dataset("mine", tmp_path, series=True)
    np.savez(tmp_path / "rows.npz", **fields, axes="steps,channels")
    np.savez(tmp_path / "columns.npz", **fields, axes="channels,steps")
    rows = load_dataset("rows", tmp_path, series=True)
    columns = load_dataset("columns", tmp_path, series=True)
    assert np.array_equal(rows.x_train, columns.x_train.transpose(0, 2, 1))
    assert "'axes': expected \"steps,channels\" or" in refused(
        tmp_path, axes="channels,time", x_train=x, x_test=x[:4]
    )


def test_readings_of_one_channel(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 30)) + 100
    np.savez(tmp_path / "mine.npz", **arrays(x_train=x, x_test=x[:4]))
    mine = load_dataset("mine", tmp_path, series=True)
    assert mine.input_shape == (1, 30) and len(mine.normaliser.mean) == 1
    assert load_dataset("mine", tmp_path).input_shape == (30,)
    np.savez(tmp_path / "one.npz", **arrays(x_train=x[:, :1], x_test=x[:4, :1]))
    with pytest.raises(DataError, match="is no window of a series"):
        load_dataset("one", tmp_path, series=True)


def test_a_file_may_say_how_many_classes_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays(num_classes=np.array(9)))
    assert load_dataset("mine", tmp_path).num_classes == 9
    assert "from 0 to 1, got 0 to 2" in refused(tmp_path, num_classes=2)
    assert "'num_classes': expected one integer" in refused(tmp_path, num_classes=1.5)
    assert "'num_classes': expected one integer" in refused(tmp_path, num_classes=0)


def test_a_file_may_say_what_its_classes_are_called(tmp_path: Path) -> None:
    names = np.array(["ok", "crack", "rust", "hole"])
    np.savez(tmp_path / "mine.npz", **arrays(class_names=names))
    mine = load_dataset("mine", tmp_path)
    assert mine.num_classes == 4
    assert task_of(mine).classes == mine.class_names == ("ok", "crack", "rust", "hole")
    assert "from 0 to 1, got 0 to 2" in refused(tmp_path, class_names=names[:2])
    said = refused(tmp_path, class_names=names, num_classes=5)
    assert said.endswith("'class_names': expected 5 names, got 4")
    for bad in (np.arange(4), np.array(["a", "", "b"]), names.reshape(2, 2)):
        said = refused(tmp_path, class_names=bad)
        assert "'class_names': expected strings of 1 to 100 letters, one for" in said
    twice = refused(tmp_path, class_names=np.array(["a", "b", "a"]))
    assert twice.endswith("expected each name once, got 'a' twice")


def test_groups(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(group_train=np.arange(6, dtype=np.uint8)))
    groups = load_dataset("a", tmp_path).group_train
    assert groups is not None and groups.tolist() == [0, 1, 2, 3, 4, 5]
    # Tracks are numbered anew in every class; uint8 labels must not wrap around.
    track = np.array([0, 0, 0, 0, 200, 1], dtype=np.uint8)
    np.savez(tmp_path / "b.npz", **arrays(track_train=track))
    groups = load_dataset("b", tmp_path).group_train
    assert groups is not None and groups.tolist() == [0, 201, 402, 0, 401, 403]
    assert "'group_train': expected shape (6,)" in refused(
        tmp_path, group_train=np.arange(5)
    )


def test_owners(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(owner_train=np.array([4, 4, 2, 2, 9, 9])))
    owners = load_dataset("a", tmp_path).owner_train
    assert owners is not None and owners.tolist() == [4, 4, 2, 2, 9, 9]
    assert "'owner_train': expected integers" in refused(
        tmp_path, owner_train=np.zeros(6)
    )


def test_cached_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays())
    first = load_dataset("mine", tmp_path)
    assert load_dataset("mine", tmp_path) is first
    np.savez(path, **arrays(y_test=np.array([0, 1, 2, 4])))
    os.utime(path, ns=(1, 1))
    assert load_dataset("mine", tmp_path).num_classes == 5


@pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
def test_missing_array(tmp_path: Path, missing: str) -> None:
    changes: dict[str, Any] = {missing: None}
    assert f"has no array {missing!r}" in refused(tmp_path, "mine", **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_train": np.zeros(5, int)}, "'y_train': expected shape (6,), got (5,)"),
        ({"y_test": np.zeros((4, 1), int)}, "'y_test': expected shape (4,)"),
        ({"y_train": np.zeros(6)}, "'y_train': expected integers, got float64"),
        ({"y_train": np.full(6, -1)}, "'y_train': expected labels from 0, got -1"),
        ({"x_train": np.zeros(6)}, "'x_train': expected samples along"),
        ({"x_train": np.zeros((0, 8, 8))}, "'x_train': expected samples along"),
        (
            {"x_train": np.zeros((6, 8, 8, 7)), "x_test": np.zeros((4, 8, 8, 7))},
            "'x_train': a sample of shape (8, 8, 7)",
        ),
        ({"x_train": np.zeros((6, 8, 8), complex)}, "'x_train': expected numbers, got"),
        (
            {"x_train": np.full((6, 8, 8), np.nan), "x_test": np.zeros((4, 8, 8))},
            "'x_train': expected finite numbers, got nan in row 0",
        ),
        (
            {"x_train": np.ones((6, 2)), "x_test": np.array([[1, 2], [3, 1e300]])},
            "'y_test': expected shape (2,)",
        ),
        (
            {
                "x_train": np.ones((6, 2)),
                "x_test": np.array([[1, 2], [3, 1e300], [np.nan, 0], [0, np.inf]]),
            },
            "'x_test': expected finite numbers (NaN where one is missing), got 1e+300",
        ),
        ({"x_test": np.zeros((4, 8, 7), np.uint8)}, "'x_test': expected samples of"),
        ({"x_test": np.zeros((4, 8, 8))}, "'x_test': expected the type of x_train"),
        ({"x_train": np.array([{}] * 6)}, "'x_train': cannot be read (Object arrays"),
    ],
)
def test_bad_file(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert says in refused(tmp_path, **changes)


def test_not_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match=r"mine\.npz is not an \.npz archive"):
        load_dataset("mine", tmp_path)
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"\xff" * 40 + whole[100:])
    with pytest.raises(DataError, match=r"mine\.npz, array 'x_train': cannot be read"):
        load_dataset("mine", tmp_path)


def small_emnist(**changes: Any) -> dict[str, Any]:
    """Return the arrays of a file with EMNIST's classes and shape."""
    x = np.arange(52 * 784, dtype=np.uint8).reshape(52, 28, 28)
    y = np.arange(52) % 26
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y} | changes


@pytest.mark.parametrize("name", ["emnist.npz", "emnist_letters.npz"])
def test_emnist_has_two_file_names(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / name, **small_emnist())
    for series in (False, True):
        emnist = load_dataset("emnist", tmp_path, series=series)
        assert (emnist.name, emnist.num_classes) == ("emnist", 26)
        assert emnist.normaliser == DATASETS["emnist"].normaliser
        assert emnist.input_shape == (1, 28, 28)


@pytest.mark.parametrize(
    "changes",
    [
        {"y_train": np.arange(52) % 27},
        {"y_train": np.arange(52) % 2, "y_test": np.arange(52) % 2},
        {"x_train": np.zeros((52, 28, 28)), "x_test": np.zeros((52, 28, 28))},
        {
            "x_train": np.zeros((52, 20, 20), np.uint8),
            "x_test": np.zeros((52, 20, 20), np.uint8),
        },
    ],
)
def test_another_file_of_a_known_name_is_the_users_own(
    changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "emnist.npz", **small_emnist(**changes))
    np.savez(tmp_path / "mine.npz", **small_emnist(**changes))
    with caplog.at_level("INFO"):
        known = load_dataset("emnist", tmp_path)
    mine = load_dataset("mine", tmp_path)
    assert (known.num_classes, known.normaliser) == (mine.num_classes, mine.normaliser)
    assert "emnist.npz is not the known set emnist" in caplog.text


def test_digits_of_the_users_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "digits.npz", **arrays())
    with caplog.at_level("INFO"):
        mine = load_dataset("digits", tmp_path)
    assert (mine.num_classes, len(mine.x_train)) == (3, 6)
    assert "digits.npz is not the known set digits" in caplog.text


def test_unknown_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "wheels.npz", **arrays())
    with pytest.raises(DataError) as error:
        load_dataset("weels", tmp_path)
    assert "unknown dataset 'weels': choose from cifar10, digits" in str(error.value)
    assert "did you mean 'wheels'?" in str(error.value)
    with pytest.raises(DataError, match="did you mean 'cifar10'"):
        load_dataset("cifar_10", tmp_path / "missing")


@pytest.mark.parametrize("name", ["", "..", "../mine", "/etc/mine", "sub/mine"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    np.savez(tmp_path / "mine.npz", **arrays())
    np.savez(tmp_path / "sub" / "mine.npz", **arrays())
    with pytest.raises(DataError, match="unknown dataset"):
        load_dataset(name, tmp_path / "sub" if name == "../mine" else tmp_path)


def test_the_users_file_comes_before_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Path:
        raise AssertionError("downloads although the file is there")

    monkeypatch.setattr(module, "fetch", never)
    np.savez(tmp_path / "fashion_mnist.npz", **arrays())
    assert load_dataset("fashion_mnist", tmp_path).num_classes == 3


def test_registry() -> None:
    assert set(DATASETS) == {
        *("digits", "cifar10", "emnist", "gtsrb", "fashion_mnist"),
        *("reviews", "sent140"),
    }


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflate, "ALWAYS", 2**20)
    bomb = tmp_path / "mine.npz"
    huge = np.zeros((4000, 64, 64), np.uint8)  # 16 MB in 16 kB
    fields = arrays(x_train=huge, y_train=np.arange(4000) % 3)
    np.savez_compressed(bomb, **{**fields, "x_test": huge[:4]})
    monkeypatch.setattr(
        np.lib.npyio.NpzFile, "__getitem__", lambda *_: pytest.fail("unpacked")
    )
    with pytest.raises(DataError, match=r"mine\.npz unpacks to more than 4 MiB"):
        load_dataset("mine", tmp_path)


def test_a_machine_without_room_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100))
    with pytest.raises(DataError, match="free of this machine's memory"):
        load_dataset("mine", tmp_path)


def test_a_header_that_names_any_size_is_no_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    with ZipFile(tmp_path / "mine.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = members["x_train.npy"]
    assert b"(6, 8, 8), }" in header
    huge = header.replace(b"(6, 8, 8), }" + b" " * 14, b"(600000000, 8000, 8000), }")
    assert len(huge) == len(header) and huge != header
    for wrong in (huge, header.replace(b"(6, 8, 8)", b"(9, 9, 9)")):
        with ZipFile(tmp_path / "mine.npz", "w") as archive:
            for name, data in {**members, "x_train.npy": wrong}.items():
                archive.writestr(name, data)
        with pytest.raises(DataError, match="array 'x_train'"):
            load_dataset("mine", tmp_path)


def test_a_file_of_the_same_time_and_size_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays())
    first, stat = load_dataset("mine", tmp_path), path.stat()
    assert load_dataset("mine", tmp_path) is first
    np.savez(
        tmp_path / "other.npz", **arrays(y_train=np.array([2, 1, 0, 2, 1, 0], np.uint8))
    )
    os.replace(tmp_path / "other.npz", path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert load_dataset("mine", tmp_path).y_train.tolist() == [2, 1, 0, 2, 1, 0]


def columns(path: Path, tokeniser: Any) -> Any:
    """A reader: the last column is the label, every third row is the test set."""
    table = np.loadtxt(path, delimiter=",")
    x, y, test = table[:, :-1], table[:, -1].astype(int), np.arange(len(table)) % 3 == 2
    return {
        "x_train": x[~test],
        "y_train": y[~test],
        "x_test": x[test],
        "y_test": y[test],
    }


def folder(path: Path, tokeniser: Any) -> Any:
    """A reader of a directory, which answers with a whole data set."""
    x = tokeniser.encode(text.read_text() for text in sorted(path.iterdir()))
    y = np.array([0, 1])
    return Dataset(
        name="?",
        x_train=x,
        y_train=y,
        x_test=x,
        y_test=y,
        num_classes=2,
        input_shape=(tokeniser.length,),
        vocabulary=tokeniser.vocabulary,
    )


def a_list(path: Path, tokeniser: Any) -> Any:
    return [1, 2]


def without_labels(path: Path, tokeniser: Any) -> Any:
    return {"x_train": np.zeros((2, 2)), "x_test": np.zeros((2, 2))}


MINE = "tests.common.data.test_datasets"
ROWS = "0.5,1,0\n0.25,2,1\n0.75,3,1\n"


def test_a_reader_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text(ROWS)
    data = load_dataset("sales.csv", tmp_path, reader=f"{MINE}:columns")
    assert data.x_train.tolist() == [[0.5, 1], [0.25, 2]]
    assert data.x_train.dtype == np.float32
    assert data.y_train.tolist() == [0, 1]
    assert (data.x_test.tolist(), data.y_test.tolist()) == ([[0.75, 3]], [1])
    assert (data.name, data.num_classes, data.input_shape) == ("sales.csv", 2, (2,))
    assert load_dataset("sales.csv", tmp_path, reader=f"{MINE}:columns") is data


def test_an_installed_reader_is_found_by_the_ending_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"csv": EntryPoint("csv", f"{MINE}:columns", "expertfleet.readers")}
    monkeypatch.setattr("common.registry.installed_parts", lambda _: points)
    (tmp_path / "sales.csv").write_text(ROWS)
    for reader in ("", "csv"):
        assert load_dataset("sales", tmp_path, reader=reader).y_train.tolist() == [0, 1]
    with pytest.raises(DataError, match="did you mean 'sales'"):
        load_dataset("sale", tmp_path)


def test_a_directory_can_be_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name, text in (("a", "one two"), ("b", "two")):
        (tmp_path / "notes" / name).write_text(text)
    tokeniser = HashedPieces(length=4, vocabulary=32)
    data = load_dataset("notes", tmp_path, tokeniser, reader=f"{MINE}:folder")
    assert (data.name, data.kind, data.x_train.shape) == ("notes", "int64", (2, 4))


@pytest.mark.parametrize(
    ("reader", "error", "says"),
    [
        ("csw", SettingsError, "reader = 'csw' is not allowed: choose from jsonl"),
        (f"{MINE}:a_list", SettingsError, "a_list' returned a list: expected arrays"),
        (f"{MINE}:without_labels", DataError, "has no array 'y_train'"),
        (f"{MINE}:columns", DataError, "cannot be read by .*columns: ValueError: "),
    ],
)
def test_what_is_no_reader_is_one_error_that_names_it(
    tmp_path: Path, reader: str, error: type[Exception], says: str
) -> None:
    (tmp_path / "sales").write_text("no,numbers\n")
    with pytest.raises(error, match=says):
        load_dataset("sales", tmp_path, reader=reader)


def test_a_file_or_folder_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(DataError, match=r"mine\.npz cannot be read: Permission"):
            load_dataset("mine", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)
        with pytest.raises(DataError, match="cannot be read: Permission denied"):
            load_dataset("mine", tmp_path)
