"""The first query in a fleet whose devices have data of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from common import wire
from common.task import Fixed
from server_app.fleet import nodes
from server_app.fleet.fleet import Fleet
from server_app.run_folder.checkpoint import decode, encode
from tests.server_app.fleet.own import TASK, device, task_file, windows
from tests.server_app.fleet.town import OLD, Server, Town

NAMES = ("cam-north", "cam-south", "cam-west")


def town_of(*names: str, **of_the_last: Any) -> Town:
    """Return nodes of devices, the last of which says something else as well."""
    town = Town(len(names))
    for number, name in enumerate(names):
        town.says[number + 1] = device(name, windows(number))
    town.says[len(names)] |= of_the_last
    return town


def server_of(town: Town, folder: Path, more: str = "", **config: Any) -> Server:
    return Server(town, task=task_file(folder, more), **config)


def begin(server: Server, server_round: int = 1, timeout: float = 5.0) -> list[str]:
    """Look at the fleet as before a round that has enough clients."""
    server.ready(server_round, timeout)
    names = server.ready(server_round, timeout)
    by_name = {client.name: client for client in server.fleet.clients}
    found = server.fleet.begin([by_name[name] for name in names])
    return [client.name for client in found]


def scale(fleet: Fleet) -> Fixed:
    found = fleet.agreement.task.scale
    assert isinstance(found, Fixed)
    return found


def pooled(*seeds: int) -> tuple[Any, Any]:
    """Return mean and std of all samples in one array: no moments are merged."""
    values = np.concatenate([windows(seed) for seed in seeds]).astype(np.float64)
    return values.mean(axis=(0, 2)), values.std(axis=(0, 2))


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


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "too few": (
        {"rows": 3, "num_examples": 2, "per_class": []},
        "has 3 samples, the task asks for at least 10",
    ),
    "one": (
        {"rows": 1, "num_examples": 1, "per_class": []},
        "has 1 sample, the task asks for at least 10",
    ),
    "nothing to train on": (
        {"num_examples": 0},
        "has nothing to train on: all of its 50 samples are for testing",
    ),
    "more than it has": (
        {"num_examples": 51},
        "states 51 samples to train on, of 50 that it has",
    ),
    "classes": (
        {"per_class": [1, 2]},
        "states samples of 2 classes, the task has 3",
    ),
    "counts": (
        {"per_class": [49, 2, 1]},
        "states 52 samples to train on, of 50 that it has",
    ),
    "another task": (
        {"task_hash": "0" * 16},
        "understands another task than the server's (0000000000000000, not "
        f"{TASK.digest})",
    ),
    "no task": ({"task_hash": ""}, "understands another task than the server's (none"),
    "a share": (
        {"partition_id": 1, "num_partitions": 3},
        "has share 1 of 3 of a data set, but in a run with a task every device has "
        "data of its own: say data-path in its node configuration, or partition = "
        '"folders" for a simulation',
    ),
    "no moments": (
        {f"moments_{k}": [] for k in ("count", "mean", "m2", "least", "most")},
        "states no moments of its samples",
    ),
    "half of them": (
        {"moments_mean": [1.0]},
        "states 1 numbers as mean of its samples: the task has 2 channels",
    ),
    "m2": (
        {"moments_m2": [0.0, 0.0]},
        "states what no samples have, channel 'ax': m2 is too small for the range",
    ),
    "count": (
        {"moments_count": [321.0, 320.0]},
        "count must be an integer from 0 to 320",
    ),
    "code": (OLD, "runs other code"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_has_the_name_and_the_reason_and_the_others_go_on(
    case: str, tmp_path: Path
) -> None:
    says, told = REFUSED[case]
    town = town_of(*NAMES, **says)
    server = server_of(town, tmp_path)
    assert begin(server) == [*NAMES[:2]]
    [(name, reason)] = server.fleet.refused.items()
    assert name == "cam-west"
    assert told in reason
    assert "\n" not in reason
    mean, _ = pooled(0, 1)
    np.testing.assert_allclose(scale(server.fleet).mean, mean, rtol=1e-6)
    # It is repaired and comes anew, as a SuperNode does that is started again.
    town.says[3] = device("cam-west", windows(2))
    town.activated[3] = "2026-01-02T00:00:00Z"
    assert begin(server, 2) == [*NAMES]
    assert server.fleet.refused == {}


def test_one_that_is_repaired_in_place_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "RETRY_SECONDS", 0.0)
    town = town_of(*NAMES, rows=3, num_examples=3, per_class=[])
    server = server_of(town, tmp_path)
    assert server.ready(1) == [*NAMES[:2]]
    town.says[3] = device("cam-west", windows(2))
    assert begin(server) == [*NAMES]
    mean, _ = pooled(0, 1, 2)
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


def test_a_range_that_differs_tenfold_is_told_with_the_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = town_of(*NAMES)
    town.says[3] = device("cam-west", windows(2) * np.float32(9.8))
    server = server_of(town, tmp_path)
    assert begin(server) == [*NAMES]
    notes = server.fleet.take_notes()
    [note] = [each for each in notes if "tenfold" in each]
    assert note.startswith(
        "cam-west: its range differs tenfold from the fleet's: its channel 'ax' is from"
    )
    assert note in caplog.messages
    assert server.fleet.take_notes() == []


def test_what_a_device_says_of_its_data_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = town_of(*NAMES, warnings=["values far from 0 +- 1 after scaling: ax"])
    server = server_of(town, tmp_path)
    begin(server)
    begin(server, 2)
    town.activated[3] = "2026-01-02T00:00:00Z"
    begin(server, 3)
    told = "cam-west: values far from 0 +- 1 after scaling: ax"
    assert caplog.messages.count(told) == 1
    assert server.fleet.take_notes() == [told]


def test_the_log_says_on_how_much_each_trains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = town_of(*NAMES, unreadable=3, data_format="png, jpg")
    server = server_of(town, tmp_path)
    with caplog.at_level("INFO", "flwr.expertfleet"):
        begin(server)
    assert (
        "trains on 40 of 50 rows of cam-west (png, jpg), 3 unreadable; none of fall"
        in caplog.messages
    )
    [line] = [each for each in caplog.messages if each.startswith("scale of this run")]
    assert "of the 120 training samples of 3 devices: ax 2.9" in line
    facts = server.fleet.facts()
    said = facts["clients"]["cam-west"]
    assert (said["num_examples"], said["rows"], said["unreadable"]) == (40, 50, 3)
    assert said["per_class"] == [40, 10, 0]
    assert not any(key.startswith("moments") for key in said)
    assert facts["task"]["scale"]["mean"] == list(scale(server.fleet).mean)


def test_many_that_join_at_once_are_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = server_of(town_of(*(f"c{n:02}" for n in range(60))), tmp_path)
    with caplog.at_level("INFO", "flwr.expertfleet"):
        begin(server)
    lines = [each for each in caplog.messages if "rows" in each]
    assert lines == [
        "60 clients with data of their own join: they train on 2400 of 3000 rows, 0 "
        "unreadable"
    ]


def test_a_fixed_scale_needs_no_moments(tmp_path: Path) -> None:
    nothing: dict[str, Any] = REFUSED["no moments"][0]
    town = town_of(*NAMES, **nothing)
    more = "scale = {mean = [1.0], std = [2.0]}"
    server = server_of(town, tmp_path, more)
    assert begin(server) == [*NAMES]
    assert scale(server.fleet) == Fixed(mean=(1.0,), std=(2.0,))


def test_two_devices_of_one_name_and_what_lets_the_second_in(tmp_path: Path) -> None:
    town = town_of("cam-north", "cam-north")
    server = server_of(town, tmp_path)
    assert begin(server) == ["cam-north"]
    assert server.fleet.refused == {
        "cam-north (node 2)": "node 1 is here under this name: every device needs a "
        "name of its own (name in its node configuration)"
    }
    town.says[2] = device("cam-south", windows(1))
    town.activated[2] = "2026-01-02T00:00:00Z"
    assert begin(server, 2) == ["cam-north", "cam-south"]


class Refusing(Town):
    """Nodes of which some say why they cannot take part."""

    def __init__(self, nodes: int) -> None:
        super().__init__(nodes)
        self.reasons: dict[int, wire.Refusal] = {}

    def _handle(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if (refusal := self.reasons.get(node)) is None:
            return super()._handle(message)
        self.asked.append(node)
        return Message(wire.encode_refusal(refusal), reply_to=message)


UNKNOWN = "/data/train: class 'crak' is none of the task's: ok, crack; did you mean"


def test_a_device_that_says_why_it_cannot_take_part(tmp_path: Path) -> None:
    town = Refusing(2)
    town.says = {n: device(NAMES[n - 1], windows(n)) for n in (1, 2)}
    town.reasons[2] = wire.Refusal(client="cam-south", reason=UNKNOWN)
    server = server_of(town, tmp_path)
    assert begin(server) == ["cam-north"]
    assert server.fleet.refused == {"cam-south": UNKNOWN}
    town.reasons.clear()
    town.activated[2] = "2026-01-02T00:00:00Z"
    assert begin(server, 2) == [*NAMES[:2]]
    # One that is in, and finds that its data are gone, is out until they are back.
    town.reasons[2] = wire.Refusal(client="cam-south", reason="/data: no samples")
    town.activated[2] = "2026-01-03T00:00:00Z"
    assert begin(server, 3) == ["cam-north"]
    assert server.fleet.refused == {"cam-south": "/data: no samples"}


def test_one_whose_name_cannot_be_used_is_told_of_by_its_node(tmp_path: Path) -> None:
    town = Refusing(1)
    town.reasons[1] = wire.Refusal(client="", reason="name = '?' is not allowed")
    server = server_of(town, tmp_path)
    assert server.ready(1) == []
    assert server.fleet.refused == {"node 1": "name = '?' is not allowed"}


def test_a_reason_is_one_line_whatever_a_device_sends() -> None:
    content = wire.encode_refusal(
        wire.Refusal(client="c", reason="a\n\x1b[31mb" + "x" * 1000)
    )
    said = wire.decode_refusal(content)
    assert said is not None
    assert "\n" not in said.reason and "\x1b" not in said.reason
    assert len(said.reason) <= 300
