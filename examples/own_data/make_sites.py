"""Write three small fleets with data of their own: images, sensor windows, a table.

    python examples/own_data/make_sites.py OUT [--seed N]

Each has ``task.toml`` (the agreement), ``sites/`` (one folder for each device, as the
device itself would have it), ``new/`` (samples without a class, to be predicted) and
``run.toml`` (settings of a simulation of exactly this). Sites differ as real ones do:
none has all four classes, and each has a camera, a mounting or a plant of its own.

Digits are those of scikit-learn; readings and rows are made up, from the seed.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

Array = NDArray[np.float64]
Maker = Callable[[Path, np.random.Generator], Sequence[str]]

HELD = ((0, 1, 2), (1, 2, 3), (3, 0))
"""Which of its four classes each of the three sites has."""

DIGITS = ("zero", "one", "two", "three")
CAMERAS = ("cam-east", "cam-north", "cam-south")

MOVES = ("rest", "walk", "run", "stairs")
WEARERS = ("anna", "bert", "cleo")
RECORDINGS, READINGS, RATE = 12, 512, 50.0
"""Recordings of each class on a site, readings of one, and readings a second."""

STATES = ("ok", "worn", "loose", "hot")
PLANTS = ("plant-a", "plant-b", "plant-c")
MODES = ("idle", "drill", "mill")
ROWS = 80
"""Rows of each class on a site."""


def images(folder: Path, rng: np.random.Generator) -> Sequence[str]:
    """Write pictures in folders that have the names of their classes."""
    digits = load_digits()
    everything = (digits.images * (255 / 16)).astype(np.uint8)
    for number, name in enumerate(DIGITS):
        pictures = rng.permutation(everything[digits.target == number])
        sites = [site for site, held in enumerate(HELD) if number in held]
        *shares, unseen = np.split(
            pictures, np.linspace(0, len(pictures) - 4, len(sites) + 1).astype(int)[1:]
        )
        for site, share in zip(sites, shares, strict=True):
            place = folder / "sites" / CAMERAS[site] / name
            place.mkdir(parents=True)
            for index, picture in enumerate(share):
                _camera(site, picture).save(place / f"{index:03d}.png")
        (folder / "new").mkdir(exist_ok=True)
        for index, picture in enumerate(unseen):
            _camera(sites[0], picture).save(folder / "new" / f"{name}-{index}.png")
    return ["size = [16, 16]", "channels = 1"]


def _camera(site: int, picture: NDArray[np.uint8]) -> Image.Image:
    """Return what the camera of a site makes of it: grey, in colour, or 16 bit."""
    if site == 0:
        return Image.fromarray(picture).resize((16, 16))
    if site == 1:
        warm = np.stack([picture, picture * 0.9, picture * 0.7], axis=-1)
        return Image.fromarray(warm.astype(np.uint8)).resize((24, 24))
    dim = picture.astype(np.uint16) * 180 + 2000
    return Image.fromarray(np.kron(dim, np.ones((2, 2), np.uint16)))


def sensors(folder: Path, rng: np.random.Generator) -> Sequence[str]:
    """Write a CSV file for each recording of an accelerometer, in m/s^2."""
    head = ["ax", "ay", "az", "label"]
    for site, wearer in enumerate(WEARERS):
        for number in HELD[site]:
            for index in range(RECORDINGS):
                rows = _recording(number, site, rng)
                file = folder / "sites" / wearer / f"{MOVES[number]}-{index:02d}.csv"
                _write(file, head, ([*row, MOVES[number]] for row in rows))
    for number, name in enumerate(MOVES):
        rows = _recording(number, _first(number), rng)
        _write(folder / "new" / f"{name}.csv", head[:-1], (list(row) for row in rows))
    return [
        'channels = ["ax", "ay", "az"]',
        "length = 64",
        "stride = 64",
        f"rate = {RATE}",
    ]


def _recording(number: int, site: int, rng: np.random.Generator) -> Iterator[list[str]]:
    """Yield readings of one activity; every wearer has the sensor tilted a bit more."""
    hertz, swing, jolt = ((0.2, 0.1, 0.1), (1.8, 2, 0.6), (2.8, 7, 1.5), (1.4, 3, 2))[
        number
    ]
    time = np.arange(READINGS) / RATE
    beat = 2 * np.pi * hertz * rng.uniform(0.9, 1.1) * time + rng.uniform(0, 6)
    up = 9.81 + swing * np.sin(beat) + jolt * np.sin(2 * beat)
    ahead = 0.4 * swing * np.sin(beat / 2)
    aside = 0.5 * jolt * np.cos(2 * beat)
    lean = 0.2 * site
    x = ahead * np.cos(lean) + up * np.sin(lean)
    z = up * np.cos(lean) - ahead * np.sin(lean)
    axes = np.stack([x, aside, z], axis=1)
    for row in axes + rng.normal(0, 0.3, axes.shape):
        yield [f"{value:.3f}" for value in row]


def machines(folder: Path, rng: np.random.Generator) -> Sequence[str]:
    """Write one table for each plant: numbers, a category, and cells left empty."""
    head = ["temperature", "vibration", "pressure", "mode", "state"]
    for site, plant in enumerate(PLANTS):
        rows = [_row(n, site, rng) for n in HELD[site] for _ in range(ROWS)]
        rng.shuffle(rows)
        _write(folder / "sites" / plant / "rows.csv", head, rows)
    rows = [_row(n, _first(n), rng)[:-1] for n in range(4) for _ in range(3)]
    _write(folder / "new" / "rows.csv", head[:-1], rows)
    return [
        "columns = [",
        '  {name = "temperature", unit = "C"},',
        '  {name = "vibration", unit = "mm/s"},',
        '  {name = "pressure", unit = "bar"},',
        '  {name = "mode", values = ["idle", "drill", "mill"]},',
        "]",
        'label-column = "state"',
    ]


def _row(number: int, site: int, rng: np.random.Generator) -> list[str]:
    heat, shake, press = ((60, 2, 6), (64, 5, 5.4), (61, 9, 4.6), (88, 3, 6.3))[number]
    values = [
        rng.normal(heat + 2 * site, 4),
        rng.normal(shake, 1),
        rng.normal(press, 0.5),
    ]
    cells = [f"{v:.2f}" if rng.random() > 0.05 else "" for v in values]
    return [*cells, MODES[rng.choice(3, p=_modes(number))], STATES[number]]


def _modes(number: int) -> Array:
    shares = np.array([1.0, 1.0, 1.0])
    shares[number % 3] += 2
    return shares / shares.sum()


def _first(number: int) -> int:
    """Return the first site that has a class."""
    return next(site for site, held in enumerate(HELD) if number in held)


def _write(
    file: Path, head: Sequence[str], rows: Iterator[list[str]] | list[list[str]]
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([head, *rows])


FLEETS: dict[str, tuple[str, Sequence[str], str, float, Maker]] = {
    "images": ("image", DIGITS, "cnn", 0.02, images),
    "sensors": ("series", MOVES, "cnn1d", 0.02, sensors),
    "machines": ("table", STATES, "mlp", 0.05, machines),
}
"""Of each: kind of task, classes, backbone, learning rate, and what writes it."""


def make(out: Path, seed: int) -> None:
    """Write all three below a directory that does not exist yet, or is empty."""
    for stream, (name, fleet) in enumerate(FLEETS.items()):
        kind, classes, backbone, rate, maker = fleet
        folder = out / name
        folder.mkdir(parents=True)
        shape = maker(folder, np.random.default_rng([seed, stream]))
        names = ", ".join(f'"{each}"' for each in classes)
        lines = [f'kind = "{kind}"', f"classes = [{names}]", *shape]
        (folder / "task.toml").write_text("\n".join(lines) + "\n", "utf-8")
        settings = [
            f"task = '{(folder / 'task.toml').absolute()}'",
            f"data-dir = '{(folder / 'sites').absolute()}'",
            'partition = "folders"',
            f'backbone = "{backbone}"',
            "num-experts = 4",
            f"lr = {rate}",
            "num-rounds = 15",
        ]
        (folder / "run.toml").write_text("\n".join(settings) + "\n", "utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the fleets; 2 where there is something already."""
    parser = argparse.ArgumentParser(description="Write three small fleets.")
    parser.add_argument("out", type=Path, metavar="OUT", help="an empty directory")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    args = parser.parse_args(argv)
    try:
        if args.out.is_dir() and any(args.out.iterdir()):
            print(f"error: {args.out} is not empty", file=sys.stderr)
            return 2
        make(args.out, args.seed)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    for name in FLEETS:
        print(f"{args.out / name}: task.toml run.toml sites/ new/")
    settings = args.out / "images" / "run.toml"
    print(f"try: python -m server_app simulate --run-config {settings}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
