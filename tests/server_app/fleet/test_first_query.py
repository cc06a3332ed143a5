"""The first query in a fleet with data of its own: one scale for all devices."""

from pathlib import Path

import numpy as np

from common.task import Fixed
from server_app.run_folder.checkpoint import decode, encode
from tests.server_app.fleet.joining import (
    NAMES,
    NO_MOMENTS,
    begin,
    pooled,
    scale,
    server_of,
    town_of,
)
from tests.server_app.fleet.own import TASK, device, windows


def test_the_scale_is_that_of_all_training_samples_together(tmp_path: Path) -> None:
    server = server_of(town_of(*NAMES), tmp_path)
    assert server.fleet.agreement.task.needs_moments
    assert begin(server) == [*NAMES]
    mean, std = pooled(0, 1, 2)
    np.testing.assert_allclose(scale(server.fleet).mean, mean, rtol=1e-6)
    np.testing.assert_allclose(scale(server.fleet).std, std, rtol=1e-6)
    assert server.fleet.agreement.task.digest == TASK.digest


def test_the_order_of_arrival_does_not_matter(tmp_path: Path) -> None:
    found = []
    for order in ((1, 2, 3), (3, 1, 2), (2, 3, 1)):
        town = town_of(*NAMES)
        server = server_of(town, tmp_path)
        for number in range(1, 4):  # they are connected one after the other
            town.here = list(order[:number])
            server.ready(1)
        assert begin(server) == [*NAMES]
        assert [client.row for client in server.fleet.clients] == [0, 1, 2]
        fleet_range = server.fleet.agreement.fleet_range
        assert fleet_range is not None
        bits = [values.tobytes() for values in vars(fleet_range.moments).values()]
        found.append((scale(server.fleet), bits))
    assert found[0] == found[1] == found[2]


def test_tiers_are_drawn_as_if_all_had_come_at_once(tmp_path: Path) -> None:
    names = [f"pi{number}" for number in range(4)]
    tiers = []
    for waves in ([[1, 2, 3, 4]], [[4], [4, 2], [4, 2, 1, 3]]):
        town = town_of(*names)
        server = server_of(town, tmp_path, expert_capacity="1:0.5,2:0.5")
        for town.here in waves:
            server.ready(1)
        begin(server)
        tiers.append([client.tier for client in server.fleet.clients])
    assert tiers[0] == tiers[1]
    assert sorted(tiers[0]) == [1, 1, 2, 2]


def test_who_comes_later_does_not_move_the_scale(tmp_path: Path) -> None:
    town = town_of(*NAMES, "late")
    town.here = [1, 2, 3]
    server = server_of(town, tmp_path)
    begin(server)
    before = scale(server.fleet)
    town.here = [1, 2, 3, 4]
    town.says[4] = device("a-late-one", windows(9, scale=2.0))
    assert begin(server, 2) == [*NAMES, "a-late-one"]
    assert scale(server.fleet) == before
    # Rows are not given anew either, though its name comes first.
    assert [client.name for client in server.fleet.clients] == [*NAMES, "a-late-one"]


def test_a_run_that_goes_on_keeps_the_scale_bit_for_bit(tmp_path: Path) -> None:
    town = town_of(*NAMES)
    town.here = [1, 2]
    server = server_of(town, tmp_path)
    begin(server)
    fleet = server.fleet
    kept = decode(encode({"fleet": fleet.state(), "task": fleet.agreement.state()}))
    again = server_of(town, tmp_path)
    again.fleet.load_state(kept["fleet"])
    again.fleet.agreement.load_state(kept["task"])
    town.here = [1, 2, 3]
    assert begin(again, 5) == [*NAMES]
    assert scale(again.fleet) == scale(fleet)
    mean, _ = pooled(0, 1)
    np.testing.assert_allclose(scale(again.fleet).mean, mean, rtol=1e-6)
    # What is odd is measured against is kept as well.
    town.says[3] = device("cam-west", windows(2) * np.float32(1e6))
    town.activated[3] = "2026-01-02T00:00:00Z"
    assert begin(again, 6) == [*NAMES[:2]]
    assert "one scale cannot fit both" in again.fleet.refused["cam-west"]


def test_all_that_are_connected_are_waited_for(tmp_path: Path) -> None:
    town = town_of(*NAMES)
    town.deaf = {2}
    server = server_of(town, tmp_path)
    # It never failed: the time that there is passes before others begin without it.
    assert begin(server, timeout=0.3) == ["cam-north", "cam-west"]
    assert server.fleet.refused == {"node 2": "does not answer"}
    mean, _ = pooled(0, 2)
    np.testing.assert_allclose(scale(server.fleet).mean, mean, rtol=1e-6)


def test_one_device_that_claims_1e30_does_not_ruin_the_scale(tmp_path: Path) -> None:
    town = town_of(*NAMES)
    town.says[1] = device("cam-north", windows(0) * np.float32(1e30))
    server = server_of(town, tmp_path)
    assert begin(server) == [*NAMES[1:]]
    reason = server.fleet.refused["cam-north"]
    assert reason.startswith("its channel 'a") and "that of others from" in reason
    mean, std = pooled(1, 2)
    np.testing.assert_allclose(scale(server.fleet).mean, mean, rtol=1e-6)
    np.testing.assert_allclose(scale(server.fleet).std, std, rtol=1e-6)


def test_the_wild_one_may_be_the_first_to_come(tmp_path: Path) -> None:
    town = town_of(*NAMES)
    town.says[1] = device("cam-north", windows(0) * np.float32(1e6))
    server = server_of(town, tmp_path)
    town.here = [1]
    assert server.ready(1) == ["cam-north"]
    town.here = [1, 2]
    assert server.ready(1) == ["cam-south"]
    # A third that is like the first: most decide, and the first is asked again.
    town.says[3] = device("cam-west", windows(2) * np.float32(1e6))
    town.here = [1, 2, 3]
    assert begin(server) == [*NAMES]


def test_a_fixed_scale_needs_no_moments(tmp_path: Path) -> None:
    town = town_of(*NAMES, **NO_MOMENTS)
    more = "scale = {mean = [1.0], std = [2.0]}"
    server = server_of(town, tmp_path, more)
    assert begin(server) == [*NAMES]
    assert scale(server.fleet) == Fixed(mean=(1.0,), std=(2.0,))


def test_class_means_are_asked_for_again_once_there_is_a_scale(tmp_path: Path) -> None:
    town = town_of(*NAMES)
    server = server_of(town, tmp_path)
    server.fleet.agreement.projections = 1
    assert begin(server) == [*NAMES]  # of raw samples they had nothing to say
    assert not server.fleet.clients[0].profile.statistic_counts
    town.asked.clear()
    for node in (1, 2, 3):
        town.says[node] |= {
            "statistic_means": [1.0, 2.0, 0.0],
            "statistic_counts": [9, 9, 0],
            "statistic_covariance": [4.0],
        }
    for server_round in (2, 3):
        assert server.ready(server_round) == [*NAMES]
    assert sorted(town.asked) == [1, 2, 3]  # once, and no more
    for client in server.fleet.clients:
        assert client.profile.statistic_counts == [9, 9, 0]
    assert "statistic_means" not in server.fleet.facts()["clients"]["cam-north"]
