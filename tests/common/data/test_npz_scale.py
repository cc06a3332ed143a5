"""How the samples of an ``.npz`` file are scaled: tables, images, series."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import load_dataset
from common.errors import DataError
from tests.common.data.npz import arrays, refused


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
