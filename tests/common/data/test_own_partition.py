"""Partitions of the user's own: a function named by its place."""

import numpy as np
import pytest
from numpy.typing import NDArray

from common.data import Request, parse_partition, partition


def in_order(request: Request) -> list[NDArray[np.int64]]:
    """The first ``argument`` samples are the first client's, the rest is dealt out."""
    cut = int(request.argument)
    rows = np.arange(len(request.labels))
    return [rows[:cut], *np.array_split(rows[cut:], request.num_clients - 1)]


def twice(request: Request) -> list[NDArray[np.int64]]:
    return [np.arange(len(request.labels))] * request.num_clients


def beyond(request: Request) -> list[NDArray[np.int64]]:
    return np.array_split(np.arange(len(request.labels)) + 1, request.num_clients)


def too_few(request: Request) -> list[NDArray[np.int64]]:
    return [np.arange(len(request.labels))]


def of_floats(request: Request) -> list[NDArray[np.float64]]:
    return np.array_split(np.arange(len(request.labels)) / 2, request.num_clients)


LABELS = np.repeat([0, 1], 10)
MINE = "tests.common.data.test_own_partition"


def test_a_partition_of_the_users_own() -> None:
    spec = parse_partition(f"{MINE}:in_order:12")
    parts = partition(LABELS, spec, 3, seed=0)
    assert [part.tolist() for part in parts] == [
        list(range(12)),
        list(range(12, 16)),
        list(range(16, 20)),
    ]
    assert parse_partition(str(spec)) == spec


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("twice", "gives samples to several clients"),
        ("beyond", "gives rows that there are not"),
        ("too_few", "returned 1 parts: expected 2 arrays of row numbers"),
        ("of_floats", "expected 2 arrays of row numbers"),
        ("MINE", "is not a Kind, or a function of a Request"),
        ("in_order:many", "expected .*in_order:NUMBER"),
    ],
)
def test_what_is_no_partition_is_one_error_that_names_it(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"{MINE}:{name}.* {says}"):
        partition(LABELS, parse_partition(f"{MINE}:{name}"), 2, seed=0)
