"""The real files, where a checkout has them beside it (or EXPERTFLEET_SHARED says)."""

import os
from pathlib import Path

import numpy as np
import pytest

from common.data import (
    client_partition,
    load_client_data,
    load_dataset,
    parse_partition,
    reserved_split,
)

SHARED = Path(
    os.environ.get("EXPERTFLEET_SHARED", Path(__file__).parents[4] / "shared" / "data")
)

pytestmark = pytest.mark.xdist_group("real-data")  # each file is read once


def need(file: str) -> Path:
    if not (SHARED / file).is_file():
        pytest.skip(f"no {file} in {SHARED} (set EXPERTFLEET_SHARED)")
    return SHARED


@pytest.mark.parametrize(
    ("name", "file", "train", "test", "shape", "classes"),
    [
        ("cifar10", "cifar10.npz", 50_000, 10_000, (3, 32, 32), 10),
        ("emnist", "emnist_letters.npz", 52_000, 10_400, (1, 28, 28), 26),
        ("gtsrb", "gtsrb.npz", 7_842, 4_210, (3, 32, 32), 43),
    ],
)
def test_sizes_and_normalisation(
    name: str,
    file: str,
    train: int,
    test: int,
    shape: tuple[int, ...],
    classes: int,
) -> None:
    dataset = load_dataset(name, need(file))
    assert len(dataset.x_train) == len(dataset.y_train) == train
    assert len(dataset.x_test) == len(dataset.y_test) == test
    assert (dataset.input_shape, dataset.num_classes) == (shape, classes)
    assert dataset.x_train.dtype == np.uint8
    x = dataset.normalise(dataset.x_train[::10])
    assert x.shape == (len(dataset.x_train[::10]), *shape)
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), 0, atol=0.03)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3)), 1, atol=0.03)


def test_cifar10_clients() -> None:
    dataset = load_dataset("cifar10", need("cifar10.npz"))
    spec = parse_partition("classes:2")
    parts = client_partition(dataset, spec, 20, seed=0, train_samples=10_000)
    assert {len(part) for part in parts} == {500}
    assert all(len(np.unique(dataset.y_train[part])) == 2 for part in parts)
    data = load_client_data(dataset, spec, 7, 20, 0, train_samples=10_000)
    assert data.x_train.shape == (400, 32, 32, 3)
    assert data.x_held_out.shape == (100, 32, 32, 3)


@pytest.mark.parametrize("spec", ["iid", "dirichlet:0.3", "classes:4"])
def test_gtsrb_tracks_stay_together(spec: str) -> None:
    dataset = load_dataset("gtsrb", need("gtsrb.npz"))
    assert dataset.group_train is not None
    assert len(np.unique(dataset.group_train)) == 1307  # 39 209 frames by 30
    parsed = parse_partition(spec)
    reserved, _ = reserved_split(dataset, 500, seed=0)
    parts = client_partition(dataset, parsed, 20, seed=0, reserved=500)
    tracks = [set(dataset.group_train[rows]) for rows in (reserved, *parts)]
    assert sum(map(len, tracks)) == len(set.union(*tracks))
    data = load_client_data(dataset, parsed, 0, 20, 0, reserved=500)
    total = len(data.y_train) + len(data.y_held_out)
    assert 0.1 < len(data.y_held_out) / total < 0.3


@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [("reviews", 6400, 1600, 4), ("sent140", 16_000, 4000, 2)],
)
def test_texts(name: str, train: int, test: int, classes: int) -> None:
    dataset = load_dataset(name, need(f"{name}.jsonl.gz"))
    assert (len(dataset.y_train), len(dataset.y_test)) == (train, test)
    assert (dataset.input_shape, dataset.num_classes) == ((64,), classes)
    assert dataset.kind == "int64"
    assert dataset.x_train.dtype == np.uint16
    assert (dataset.x_train[:, 0] > 0).all()
    assert np.bincount(dataset.y_train).min() > 0.1 * train


def test_domains_of_reviews_are_natural_clients() -> None:
    dataset = load_dataset("reviews", need("reviews.jsonl.gz"))
    assert dataset.owner_train is not None
    parts = client_partition(dataset, parse_partition("natural"), 20, seed=0)
    assert sum(map(len, parts)) == 6400
    whose = [np.unique(dataset.owner_train[part]).tolist() for part in parts]
    # Four domains of about 1600 reviews: five clients each.
    assert whose == [[k] for k in range(4) for _ in range(5)]
