"""Images as a person sees them, and as the task wants them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.errors import DataError
from common.own.images import image_decoder, read_image
from common.task import ImageTask


def task(channels: int = 3, size: tuple[int, int] = (4, 4), **more: Any) -> ImageTask:
    return ImageTask(classes=("a", "b"), size=size, channels=channels, **more)


def read(
    image: Image.Image, kind: str = "PNG", to: ImageTask | None = None, **how: Any
) -> NDArray[Any]:
    file = io.BytesIO()
    image.save(file, kind, **how)
    file.seek(0)
    return read_image(Path(__file__), to or task(), file)


def one(image: Image.Image, kind: str = "PNG", to: int = 3, **how: Any) -> list[int]:
    """Return the pixel of an image that has one colour."""
    x = read(image, kind, task(to), **how)
    assert x.shape == (4, 4, to) and x.dtype == np.uint8
    assert (x == x[0, 0]).all()
    return x[0, 0].tolist()


def test_modes_are_brought_to_the_channels_of_the_task() -> None:
    size = (5, 5)
    assert one(Image.new("L", size, 100)) == [100] * 3
    assert one(Image.new("1", size, 1)) == [255] * 3
    assert one(Image.new("RGB", size, (10, 20, 30)), to=4) == [10, 20, 30, 255]
    assert one(Image.new("RGB", size, (50, 50, 50)), to=1) == [50]
    assert one(Image.new("CMYK", size, (0, 0, 0, 0)), "TIFF") == [255] * 3
    assert one(Image.new("LA", size, (0, 255)), to=2) == [0, 255]


def test_what_is_transparent_lies_on_white() -> None:
    size = (5, 5)
    assert one(Image.new("RGBA", size, (0, 0, 0, 0))) == [255] * 3
    assert one(Image.new("LA", size, (0, 0)), to=1) == [255]
    # 0.6 of red and 0.4 of white.
    assert one(Image.new("RGBA", size, (255, 0, 0, 153))) == [255, 102, 102]
    palette = Image.new("P", size, 1)
    palette.putpalette([0, 0, 0, 9, 99, 199])
    assert one(palette) == [9, 99, 199]
    assert one(palette, transparency=1) == [255] * 3
    assert one(Image.new("RGBA", size, (1, 2, 3, 4)), to=4)[3] == 4


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (257 * 100, 100), (65535, 255), (300, 1)]
)
def test_16_bits_are_scaled_to_8(value: int, expected: int) -> None:
    image = Image.fromarray(np.full((5, 5), value, np.uint16))
    assert one(image) == [expected] * 3
    assert one(image, "TIFF", to=1) == [expected]


def test_floats_are_brightness_too() -> None:
    half = Image.fromarray(np.full((5, 5), 0.2, np.float32))
    assert one(half, "TIFF") == [51] * 3
    below = Image.fromarray(np.full((5, 5), -1, np.float32))
    with pytest.raises(DataError, match="brightness from -1 to -1"):
        one(below, "TIFF")


def test_a_camera_that_was_turned() -> None:
    # Red on the left as it is stored; to be turned by a quarter: red is above.
    stored = np.zeros((8, 8, 3), np.uint8)
    stored[:, :4] = [255, 0, 0]
    exif = Image.Exif()
    exif[0x0112] = 6
    x = read(Image.fromarray(stored), "PNG", task(size=(8, 8)), exif=exif)
    assert (x[:4] == [255, 0, 0]).all() and (x[4:] == 0).all()


def test_broken_notes_of_a_camera_do_not_spoil_the_picture() -> None:
    image = Image.new("L", (5, 5), 100)
    assert one(image, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff") == [100] * 3


def test_a_moving_picture_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    assert one(frames[0], "GIF", save_all=True, append_images=frames[1:]) == [255, 0, 0]


def test_resizing_looks_at_every_pixel() -> None:
    # A chequered board of single pixels is grey from afar.
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    x = read(Image.fromarray(board), to=task(1))
    assert abs(x.astype(int) - 128).max() <= 8


def test_cropping_keeps_the_middle_and_the_proportions() -> None:
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    assert (read(Image.fromarray(wide), to=task(1, how="crop")) == 200).all()
    squeezed = read(Image.fromarray(wide), to=task(1))
    assert squeezed.min() < 50


def test_a_large_jpeg_is_decoded_small_and_looks_the_same() -> None:
    slope = np.linspace(0, 255, 1024).astype(np.uint8)
    large = Image.fromarray(np.tile(slope, (1024, 1)))
    x = read(large, "JPEG", to=task(1, size=(8, 8))).astype(int)
    expected = slope.reshape(8, -1).mean(1)
    assert abs(x[..., 0] - expected).max() <= 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "no image that can be read"),
        (b"\x89PNG\r\n\x1a\n", "no image that can be read"),
    ],
)
def test_what_is_no_image_says_so(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{reason}$"):
        read_image(path, task())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_a_file_that_was_cut_short_is_an_error_of_one_line(
    tmp_path: Path, kind: str
) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    path = tmp_path / f"a.{kind.lower()}"
    for share in (0.3, 0.7):
        path.write_bytes(file.getvalue()[: int(share * len(file.getvalue()))])
        with pytest.raises(DataError) as raised:
            read_image(path, task())
        assert "\n" not in str(raised.value)


def test_an_image_may_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.data.inflate.ALWAYS", 1000)
    path = tmp_path / "bomb.png"
    Image.new("RGB", (4000, 4000)).save(path)
    with pytest.raises(DataError, match="unpacks to more than"):
        read_image(path, task())


def test_brightness_is_counted_as_the_task_does() -> None:
    x = read(Image.new("L", (4, 4), 255), to=task(1, bright=16.0))
    assert (x == 16).all()


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.full((2, 4, 4), 51, np.uint8), 51),
        (np.full((2, 4, 4, 1), 0.2), 51),
        (np.full((2, 1, 4, 4), 51.0), 51),
        (np.full((2, 4, 4), 51 * 257, np.uint16), 51),
        (np.ones((2, 4, 4), bool), 255),
        (np.full((2, 4, 4), 51, np.int64), 51),
        (np.full((2, 9, 9), 51, np.uint8), 51),
        (np.full((2, 9, 9, 3), 0.2, np.float32), 51),
    ],
)
def test_images_in_arrays(x: Any, expected: int) -> None:
    found = image_decoder(x, "here", task(1))(x[0])
    assert found.shape == (4, 4, 1) and found.dtype == np.uint8
    assert (found == expected).all()


@pytest.mark.parametrize(
    "x", [np.full((1, 4, 4), 300.0), np.full((1, 4, 4), -1), np.zeros((3, 5))]
)
def test_arrays_that_are_no_images(x: Any) -> None:
    with pytest.raises(DataError, match=r"^here: "):
        image_decoder(x, "here", task(1))


def test_files_of_16_bits_may_use_fewer_and_keep_their_levels() -> None:
    values = np.array([[0, 1, 2048], [4095, 7, 9]], np.uint16)
    to = task(1, size=(2, 3), bright=4095.0)
    x = read(Image.fromarray(values), to=to)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[..., 0], values, rtol=1e-6)
    # Resizing draws a curve through pixels, which leaves the range at an edge.
    edge = np.repeat([[0, 0, 4095, 4095]], 4, axis=0).astype(np.uint16)
    wide = read(Image.fromarray(edge), to=task(1, size=(4, 16), bright=4095.0))
    assert wide.min() == 0 and wide.max() == pytest.approx(4095)
    with pytest.raises(
        DataError, match="brightness from 5000 to 5000: expected 0 to 4"
    ):
        read(Image.fromarray(np.full((3, 3), 5000, np.uint16)), to=to)


def test_no_float_image_says_for_itself_what_is_bright() -> None:
    dark, light = (Image.fromarray(np.full((4, 4), v, np.float32)) for v in (1, 200))
    with pytest.raises(
        DataError, match="expected 0 to 1, or up to what the task calls"
    ):
        read(light, "TIFF")
    to = task(1, bright=256.0)
    assert read(dark, "TIFF", to).ravel() == pytest.approx(1)
    assert read(light, "TIFF", to).ravel() == pytest.approx(200)


def test_far_too_many_pixels_are_told_in_few_words(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"^far too large for an image$"):
        read_image(tmp_path / "a.png", task())
