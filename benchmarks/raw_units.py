"""Whether a model learns whatever the unit: tables, sensor windows and images.

``python -m benchmarks.raw_units`` trains on files as their owners
have them, in their own numbers, and on the same in other numbers, and prints the
server's accuracy at the end, for each seed and on average, and the mean over seeds of
the recall of the class that is found least. The test parts are the server's own. Motion
windows are made up: ten people wear a sensor of three axes, other people are the test.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.variants import BASELINE, DENSE, PLUS
from server_app.commands.simulate import simulate

Arrays = dict[str, NDArray[Any]]
CLIENTS = 6


def split(x: NDArray[Any], y: NDArray[Any], seed: int = 0) -> Arrays:
    """Return the arrays of a file; three tenths, by class, are the test set."""
    from sklearn.model_selection import train_test_split

    parts = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
    return dict(zip(("x_train", "x_test", "y_train", "y_test"), parts, strict=True))


def table(name: str) -> Arrays:
    """Return one of scikit-learn's tables, in its own units."""
    from sklearn import datasets

    return split(*getattr(datasets, f"load_{name}")(return_X_y=True))


def digits(number: Callable[[NDArray[Any]], NDArray[Any]]) -> Arrays:
    """Return scikit-learn's digits, 0 to 16, turned into other numbers."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return split(number(x.reshape(-1, 8, 8)), y)


def motion(number: Callable[[NDArray[Any]], NDArray[Any]]) -> Arrays:
    """Return windows (N, 128 steps, 3 axes) of five motions, made in g."""
    x_train, y_train, owner_train = _people(10, 90, 0)
    x_test, y_test, _ = _people(6, 60, 1)
    return {
        "x_train": number(x_train),
        "y_train": y_train,
        "x_test": number(x_test),
        "y_test": y_test,
        "owner_train": owner_train,
    }


def _flat_motion(number: Callable[[NDArray[Any]], NDArray[Any]]) -> Arrays:
    """Return the same windows as rows of a table."""
    arrays = motion(number)
    for name in ("x_train", "x_test"):
        arrays[name] = arrays[name].reshape(len(arrays[name]), -1)
    return arrays


def _people(people: int, windows: int, seed: int) -> tuple[NDArray[Any], ...]:
    """Return windows at 50 readings a second, what was done and by whom."""
    rng = np.random.default_rng(seed)
    paces = np.array([0, 1, 1.6, 2.4, 3.4])  # of standing still, and four motions
    main_axis = np.array([0, 0, 1, 1, 2])
    seconds = np.arange(128)[:, None] / 50
    x, y, owners = [], [], []
    for person in range(people):
        tilt, pace = rng.normal(0, 0.3, 3), rng.normal(1, 0.08)
        gain = rng.lognormal(0, 0.2)
        for _ in range(windows):
            what = int(rng.integers(5))
            strength = np.where(np.arange(3) == main_axis[what], 1, 0.35)
            phase = 2 * np.pi * paces[what] * pace * seconds + rng.uniform(0, 6.28, 3)
            window = rng.normal(0, 0.25, (128, 3)) + tilt
            x.append(window + (what > 0) * gain * strength * np.sin(phase))
            y.append(what)
            owners.append(person)
    return np.array(x, np.float32), np.array(y), np.array(owners)


def counts(x: NDArray[Any]) -> NDArray[Any]:
    """Return readings of a sensor that counts 4096 to one g."""
    return (x * 4096).clip(-32768, 32767).astype(np.int16)


UNITS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "g": lambda x: x,
    "m/s2": lambda x: x * np.float32(9.81),
    "counts": lambda x: x * np.float32(4096),
    "counts, int16": counts,
}
PIXELS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "float 0..1": lambda x: x / 16,
    "uint8 0..16": lambda x: x.astype(np.uint8),
}
WORN = {"partition": "natural", "num-rounds": 15}


Case = tuple[Callable[[], Arrays], dict[str, Any], int]


def cases() -> dict[str, Case]:
    """Return for every line of the table: the file, the settings and the clients."""
    plus = PLUS
    found: dict[str, Case] = {}
    for name in ("wine", "breast_cancer"):
        flex: dict[str, Any] = {"strategy": "flex-moe"}
        for label, settings in (
            ("flex-moe-plus", plus),
            ("flex-moe", flex),
            (BASELINE, DENSE[BASELINE]),
        ):
            found[f"{name}, {label}"] = (partial(table, name), settings, CLIENTS)
    # What flex-moe lacks on few rows: holders that change, or time.
    wine = partial(table, "wine")
    longer = {"strategy": "flex-moe", "num-rounds": 100}
    found["wine, random"] = (wine, {"strategy": "random"}, CLIENTS)
    found["wine, flex-moe, 100 rounds"] = (wine, longer, CLIENTS)
    for unit, number in UNITS.items():
        made = partial(motion, number)
        found[f"motion, cnn1d, {unit}"] = (made, {**WORN, "backbone": "cnn1d"}, 10)
        rows = partial(_flat_motion, number)
        found[f"motion, mlp, {unit}"] = (rows, {**WORN, **plus}, 10)
    for text, number in PIXELS.items():
        found[f"digits, {text}"] = (partial(digits, number), {}, CLIENTS)
    return found


def measured(
    arrays: Arrays, settings: Mapping[str, Any], clients: int, seed: int
) -> tuple[float, float]:
    """Train once and return the server's accuracy at the end, and the least recall."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "mine.npz"), **arrays)  # type: ignore[arg-type]
        config: dict[str, Any] = {
            "dataset": "mine",
            "data-dir": folder,
            "partition": "dirichlet:0.3",
            "test-samples": 0,
            "keep-checkpoints": 1,
            "seed": seed,
            "output-dir": folder,
            **settings,
        }
        config.setdefault("eval-every", config.get("num-rounds", 30))
        simulate(config, clients)
        [path] = Path(folder).glob("*/metrics.jsonl")
        last = json.loads(path.read_text().splitlines()[-1])
    return float(last["server_global"]), min(map(float, last["recall"]))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help="lines that begin so")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    print("| samples | accuracy | each seed | least recall |\n|---|---|---|---|")
    for name, (made, settings, clients) in cases().items():
        if name.startswith(args.only):
            runs = [measured(made(), settings, clients, seed) for seed in seeds]
            found, recall = ([run[k] for run in runs] for k in (0, 1))
            each = ", ".join(f"{value:.3f}" for value in found)
            print(
                f"| {name} | {mean(found):.3f} | {each} | {mean(recall):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
