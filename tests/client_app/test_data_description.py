"""What a device lets the server know of its data: coarse counts, test labels."""

from pathlib import Path

import numpy as np
import pytest

from client_app.data_description import at_least, hash_of_test_labels
from common.data import labels_hash


def test_private_counts_are_rounded_down_to_powers_of_ten() -> None:
    counts = np.array([0, 1, 9, 10, 11, 99, 100, 999, 1000, 123456])
    expected = [0, 0, 0, 10, 10, 10, 100, 100, 1000, 100000]
    assert at_least(counts).tolist() == expected


def test_test_labels_are_the_same_in_whatever_type_they_are_kept(
    tmp_path: Path,
) -> None:
    labels = np.array([3, 1, 2])
    for kind in ("uint8", "int32", "int64"):
        path = tmp_path / f"{kind}.npz"
        np.savez(path, x_test=np.zeros((3, 2)), y_test=labels.astype(kind))
        assert hash_of_test_labels(path) == labels_hash(labels)
    assert labels_hash(labels) != labels_hash((labels + 1) % 10)
    assert labels_hash(labels) != labels_hash(labels[:1])


@pytest.mark.parametrize("what", ["none", "no zip", "csv", "texts", "objects", "away"])
def test_where_there_are_none_nothing_is_said(what: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.csv" if what == "csv" else "a.npz")
    if what == "none":
        np.savez(path, x=np.zeros(3))
    elif what == "texts":
        np.savez(path, y_test=np.array(["a", "b"]))
    elif what == "objects":
        np.savez(path, y_test=np.array([1, None], dtype=object))
    elif what != "away":
        path.write_bytes(b"PK\x03\x04 no zip")
    assert hash_of_test_labels(path) == ""
