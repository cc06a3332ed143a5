"""What the benchmarks count, by hand."""

import numpy as np

from benchmarks.switching_cost import moves


def test_moves_are_the_pairs_a_round_adds() -> None:
    rounds = [
        [[1, 1, 0], [0, 0, 1]],
        [[1, 0, 1], [0, 0, 1]],  # client 0 gets expert 2
        [[1, 0, 1], [1, 1, 0]],  # client 1 gets experts 0 and 1
    ]
    assert moves(np.array(rounds, dtype=bool)) == 1.5
