"""Who has which sample while data drift: shares, disjointness, determinism."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data import load_client_data, load_dataset, parse_partition, share_moved
from common.data.drift import handed_on, neighbour_before

CLIENTS, SEED = 5, 3


def test_nothing_moves_in_the_first_round_and_all_has_moved_in_the_end() -> None:
    shares = [share_moved(0.25, server_round) for server_round in range(8)]
    assert shares == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert share_moved(0.0, 1000) == 0


@pytest.mark.parametrize("clients", [1, 2, 7])
def test_every_client_receives_from_one_and_gives_to_one(clients: int) -> None:
    givers = [neighbour_before(c, clients, SEED) for c in range(clients)]
    assert sorted(givers) == list(range(clients))
    if clients > 1:
        assert all(giver != c for c, giver in enumerate(givers))


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=6),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_rows_stay_disjoint_complete_and_move_one_way(
    sizes: list[int], shares: tuple[float, float]
) -> None:
    ends = np.cumsum(sizes)
    parts = [np.arange(e - n, e) for n, e in zip(sizes, ends, strict=True)]
    before, after = sorted(shares)

    def rows_at(share: float, client: int) -> set[int]:
        giver = neighbour_before(client, len(parts), SEED)
        rows = handed_on(parts[client], parts[giver], share, SEED, client, giver)
        assert (np.diff(rows) > 0).all()
        return set(rows.tolist())

    everything = [rows_at(after, c) for c in range(len(parts))]
    assert sorted(row for rows in everything for row in rows) == list(range(ends[-1]))
    for client, own in enumerate(parts):
        # What has left does not come back, what has come does not leave.
        mine = set(own.tolist())
        assert rows_at(after, client) & mine <= rows_at(before, client)
        assert rows_at(before, client) - mine <= rows_at(after, client)
        assert rows_at(0.0, client) == mine


def clients_at(moved: float) -> list[dict[str, set[bytes]]]:
    dataset = load_dataset("digits", "")
    spec = parse_partition("classes:2")
    found = []
    for client in range(CLIENTS):
        data = load_client_data(dataset, spec, client, CLIENTS, SEED, moved=moved)
        found.append(
            {
                "train": {x.tobytes() for x in data.x_train},
                "held": {x.tobytes() for x in data.x_held_out},
                "labels": set(data.y_train.tolist()),
            }
        )
    return found


def test_label_mixes_move_to_the_neighbours_and_tests_stay_tests() -> None:
    start, half, end = clients_at(0.0), clients_at(0.5), clients_at(1.0)
    held = set().union(*(c["held"] for c in start))
    trained = set().union(*(c["train"] for c in start))
    for client in range(CLIENTS):
        giver = neighbour_before(client, CLIENTS, SEED)
        assert end[client] == start[giver]
        assert (
            half[client]["labels"] == start[client]["labels"] | start[giver]["labels"]
        )
        for stage in (half, end):
            assert stage[client]["held"] <= held
            assert stage[client]["train"] <= trained
