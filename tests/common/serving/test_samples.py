"""Samples from files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import Normaliser
from common.inputs import InputError, Inputs
from common.serving.samples import read_samples

GREY = Inputs(input_shape=(1, 8, 8), num_classes=10, normaliser=Normaliser(scale=16.0))
COLOUR = Inputs(
    input_shape=(3, 4, 6), num_classes=2, normaliser=Normaliser(scale=255.0)
)


def test_the_array_x_of_an_npz(tmp_path: Path) -> None:
    x = np.arange(128, dtype=np.uint8).reshape(2, 8, 8)
    np.savez(tmp_path / "a.npz", x=x, y=[1, 2])
    names, found = read_samples(tmp_path / "a.npz", GREY)
    assert names == ["0", "1"]
    np.testing.assert_array_equal(found, x)


def test_images_become_samples_in_the_data_sets_numbers(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "b.png")
    Image.new("RGB", (16, 16), (51, 51, 51)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    names, x = read_samples(tmp_path, GREY)
    assert names == ["a.png", "b.png"]
    prepared = GREY.prepare(x)
    assert prepared.shape == (2, 1, 8, 8)
    np.testing.assert_allclose(prepared[0], 51 / 255, rtol=1e-6)
    np.testing.assert_allclose(prepared[1], 1, rtol=1e-6)


def test_colours_and_axes_stay_where_they_belong(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[1, 5] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    _, x = read_samples(tmp_path, COLOUR)
    assert x.dtype == np.uint8
    prepared = COLOUR.prepare(x)
    np.testing.assert_allclose(prepared[0, :, 1, 5] * 255, (10, 20, 30), rtol=1e-5)
    assert np.count_nonzero(prepared) == 3


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no png at all")
    np.savez(tmp_path / "other.npz", z=np.zeros(3))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("no zip")
    for name, told in (
        ("missing.npz", "does not exist"),
        ("empty", "has no image files"),
        ("bad", r"a\.png cannot be read as an image"),
        ("other.npz", r"has no array 'x' \(it has z\)"),
        ("objects.npz", "array 'x': cannot be read"),
        ("text.npz", "neither an .npz file nor a folder"),
    ):
        with pytest.raises(InputError, match=told):
            read_samples(tmp_path / name, GREY)
    tokens = Inputs(input_shape=(16,), num_classes=2, kind="int64")
    with pytest.raises(InputError, match="takes no images"):
        read_samples(tmp_path / "bad", tokens)
