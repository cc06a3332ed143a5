"""Who is refused at the first query, with name and reason, and comes in later."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from common import wire
from server_app.fleet import nodes
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
from tests.server_app.fleet.town import OLD, Town

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
        NO_MOMENTS,
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
