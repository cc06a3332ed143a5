"""What a client gets: disjoint from everyone's, repeatable, groups whole."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.data import (
    Dataset,
    client_partition,
    load_client_data,
    load_dataset,
    parse_partition,
    reserved_split,
)

IID = parse_partition("iid")
SKEWED = parse_partition("dirichlet:0.3")


def numbered(
    rows: int = 200, classes: int = 4, groups: NDArray[np.int64] | None = None
) -> Dataset:
    """Return a data set in which sample i is the number i."""
    x = np.arange(rows, dtype=np.float32).reshape(-1, 1)
    y = np.arange(rows) % classes if groups is None else groups % classes
    return Dataset(
        name="numbered",
        x_train=x,
        y_train=y,
        x_test=x[:4],
        y_test=y[:4],
        num_classes=classes,
        input_shape=(1,),
        group_train=groups,
    )


def rows_of(dataset: Dataset, clients: int, **options: Any) -> list[list[int]]:
    """Return the numbers of every client's training, then held-out samples."""
    result = []
    for c in range(clients):
        data = load_client_data(dataset, SKEWED, c, clients, 0, **options)
        for x, y in ((data.x_train, data.y_train), (data.x_held_out, data.y_held_out)):
            numbers = x.ravel().astype(int).tolist()
            assert y.tolist() == dataset.y_train[numbers].tolist()
            result.append(numbers)
    return result


def test_clients_and_their_sides_are_disjoint_and_cover_everything() -> None:
    numbers = list(chain(*rows_of(numbered(), 5)))
    assert sorted(numbers) == list(range(200))


def test_same_seed_same_data_in_a_fresh_process() -> None:
    first = rows_of(numbered(), 5)
    client_partition.cache_clear()
    assert rows_of(numbered(), 5) == first


def test_held_out_share() -> None:
    data = load_client_data(numbered(), IID, 0, 4, 0, held_out=0.4)
    assert (len(data.y_train), len(data.y_held_out)) == (30, 20)


@pytest.mark.parametrize("reserved", [0, 1, 60])
def test_the_reserved_samples_are_nobodys(reserved: int) -> None:
    dataset = numbered()
    mine, rest = reserved_split(dataset, reserved, seed=0)
    assert len(mine) == reserved
    assert sorted([*mine, *rest]) == list(range(200))
    numbers = list(chain(*rows_of(dataset, 5, reserved=reserved)))
    assert sorted(numbers) == rest.tolist()


def test_reserved_and_limited_together_do_not_overlap() -> None:
    dataset = numbered()
    mine, _ = reserved_split(dataset, 50, seed=0)
    clients = rows_of(dataset, 5, reserved=50, train_samples=80)
    numbers = list(chain(*clients))
    assert len(numbers) == 80
    assert not set(numbers) & set(mine.tolist())


def test_limited_training_set_is_stratified() -> None:
    parts = client_partition(numbered(), IID, 4, 0, train_samples=80)
    labels = numbered().y_train[np.concatenate(parts)]
    assert np.bincount(labels).tolist() == [20] * 4


def test_a_limit_above_the_size_means_all() -> None:
    parts = client_partition(numbered(), IID, 4, 0, train_samples=10**6)
    assert sum(len(part) for part in parts) == 200


@pytest.mark.parametrize("reserved", [-1, 200])
def test_reserved_out_of_range(reserved: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 199"):
        reserved_split(numbered(), reserved, seed=0)


@pytest.mark.parametrize("partition_id", [-1, 4])
def test_unknown_client(partition_id: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 3"):
        load_client_data(numbered(), IID, partition_id, 4, 0)


def test_groups_are_whole_among_clients_sides_and_server() -> None:
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 5))
    dataset = numbered(300, groups=groups)
    reserved, rest = reserved_split(dataset, 52, seed=0)
    assert len(reserved) == 52
    assert len(rest) == 300 - 55  # three frames of the last track are nobody's
    owners = [reserved.tolist(), *rows_of(dataset, 6, reserved=52)]
    seen = [set(groups[numbers].tolist()) for numbers in owners]
    assert sum(len(tracks) for tracks in seen) == len(set.union(*seen)) == 60


def test_too_few_groups() -> None:
    dataset = numbered(300, groups=np.repeat(np.arange(6), 50))
    with pytest.raises(ValueError, match=r"6 samples are too few.*count as one sample"):
        client_partition(dataset, IID, 4, 0)


def test_partition_is_computed_once_and_cannot_be_changed() -> None:
    dataset = numbered()
    parts = client_partition(dataset, SKEWED, 5, 0)
    assert client_partition(dataset, SKEWED, 5, 0) is parts
    with pytest.raises(ValueError, match="read-only"):
        parts[0][0] = 1


def test_client_data_is_the_clients_own_copy() -> None:
    dataset = numbered()
    data = load_client_data(dataset, IID, 0, 4, 0)
    data.x_train[:] = -1
    assert dataset.x_train.min() == 0
    assert data.x_train.flags.writeable


def test_normalise_as_the_dataset_does() -> None:
    dataset = load_dataset("digits", "")
    data = load_client_data(dataset, parse_partition("classes:2"), 3, 20, 0)
    assert data.x_train.dtype == np.uint8
    assert data.num_classes == 10
    assert len(np.unique(data.y_train)) == 2
    x = data.normalise(data.x_train)
    assert x.shape == (len(data.y_train), *data.input_shape)
    assert np.array_equal(x, dataset.normalise(data.x_train))
