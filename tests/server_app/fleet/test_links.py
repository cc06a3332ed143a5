"""What a link makes of bytes and of a deadline: numbers worked out by hand."""

import pytest

from common.wire import QueryReply
from server_app.fleet.client import Client, Link
from server_app.fleet.links import time_for, transfer_seconds


def client(uplink: float = 0.0, downlink: float = 0.0, seen: float = 0.0) -> Client:
    profile = QueryReply(
        client="pi3",
        partition_id=-1,
        num_partitions=0,
        num_examples=1,
        code_hash="0" * 16,
        partition_hash="0" * 16,
        uplink=uplink,
        downlink=downlink,
    )
    link = Link(latency=1.0, speed=seen)
    return Client(row=0, name="pi3", node_id=1, profile=profile, link=link)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({}, 0),  # nobody knows
        ({"uplink": 1_000}, 4_000),  # both ways as fast as the one that is known
        ({"uplink": 1_000, "downlink": 10_000}, 100 + 3_000),
        ({"uplink": 1_000, "seen": 2_000}, 2_000),  # what was seen wins over a guess
        # ... but not over its word for both ways
        ({"uplink": 1_000, "downlink": 10_000, "seen": 2_000}, 3_100),
        ({"downlink": 10_000}, 0),  # says nothing of the way up
    ],
)
def test_what_bytes_take(told: dict[str, float], seconds: float) -> None:
    assert transfer_seconds(client(**told), 1_000_000, 3_000_000) == seconds


SLOW = client(uplink=32_000)
"""256 kbit/s; 12.3 MB down and as much up take 769 s."""
SAID = "pi3 needs 769 s for 24.6 MB at 256 kbit/s, round-deadline is 300"


def test_a_link_that_is_too_slow_is_said_with_its_numbers() -> None:
    transfer = (SLOW, 12_300_000, 12_300_000)
    assert time_for([transfer], 300.0) == (300.0, {"pi3": SAID})
    assert time_for([transfer], 769.0) == (769.0, {})
    assert time_for([(client(), 10**12, 10**12)], 1.0) == (1.0, {})


def test_a_round_without_a_deadline_has_time_for_work_and_the_slowest_twice() -> None:
    transfers = [(SLOW, 320_000, 0), (SLOW, 0, 12_800_000), (client(), 10**9, 0)]
    assert time_for(transfers, 0.0) == (900 + 800, {})
    assert time_for([], 0.0) == (900, {})
