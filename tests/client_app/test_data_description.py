"""What a device lets the server know of its data: coarse counts."""

import numpy as np

from client_app.data_description import at_least


def test_private_counts_are_rounded_down_to_powers_of_ten() -> None:
    counts = np.array([0, 1, 9, 10, 11, 99, 100, 999, 1000, 123456])
    expected = [0, 0, 0, 10, 10, 10, 100, 100, 1000, 100000]
    assert at_least(counts).tolist() == expected
