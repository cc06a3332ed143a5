"""A real SuperLink and SuperNode behind weak links: 12 MB arrive, and nothing twice.

Those marked slow are of `make test-links` alone.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.links.network import skip_without_namespaces
from tests.links.weak_fleet import CONFIG, Cut, Ended, one_round, weak_fleet

pytestmark = [pytest.mark.links, pytest.mark.timeout(2700)]

APP = 3_000_000
"""Bytes of the app and of asking who is there, at most."""


@pytest.fixture(autouse=True)
def namespaces() -> None:
    skip_without_namespaces()


def arrived(ended: Ended) -> dict[str, Any]:
    """Return what the one client did in the one round, which was merged."""
    report = f"{ended.log}\n{ended.said}"
    assert ended.status == "finished:completed", report
    [record] = ended.run.records()
    assert record["merged"] and not record["rejected"], report
    [client] = record["clients"]
    assert client["replied"] and client["bytes_down"] > 12_000_000
    said = ended.said
    for line in ("link: ", "downloading ", "downloaded 12.3 MB", "uploaded "):
        assert line in said, report
    assert "Failed to send" not in said and "Failed to receive" not in said, report
    # Asked once: no order and no reply was lost and made again.
    assert said.count("Receiving: train message") == 1, report
    return dict(client)


def pieces_sent_again(ended: Ended, client: dict[str, Any], largest: int) -> float:
    """Return how many pieces too many the link has carried, either way at most.

    Packets, TLS and requests take up to a seventh more; what comes the other way is
    acknowledged.
    """
    payload = client["bytes_down"], client["bytes_up"]
    more = [
        carried - 1.15 * there - 0.05 * back
        for carried, there, back in zip(
            ended.carried, payload, reversed(payload), strict=True
        )
    ]
    return max(more[0] - APP, more[1]) / largest


@pytest.mark.slow
def test_both_ways_over_256_kbit_and_600_ms(tmp_path: Path) -> None:
    with weak_fleet(tmp_path, down=256_000, up=256_000, delay=0.6) as (fleet, link):
        ended = one_round(fleet, link, {})
    client = arrived(ended)
    assert client["bytes_up"] > 12_000_000
    assert "uploading " in ended.said
    assert pieces_sent_again(ended, client, 128 * 1024) < 3
    assert "orders go in pieces of" in ended.log


@pytest.mark.parametrize("way", ["up", pytest.param("down", marks=pytest.mark.slow)])
def test_a_link_that_is_gone_for_90_s_costs_a_piece(way: str, tmp_path: Path) -> None:
    with weak_fleet(tmp_path, down=1_000_000, up=1_000_000) as (fleet, link):
        ended = one_round(fleet, link, {}, Cut(way=way, after=4.0, seconds=90.0))
    client = arrived(ended)
    assert "Connection attempt failed" in ended.said
    # Those that were on their way, and what TCP sent into the void.
    assert pieces_sent_again(ended, client, 512 * 1024) < 6


@pytest.mark.slow
def test_a_link_that_is_eight_times_as_slow_upwards(tmp_path: Path) -> None:
    with weak_fleet(tmp_path, down=1_000_000, up=128_000) as (fleet, link):
        ended = one_round(fleet, link, {"upload-dtype": "int8"})
    client = arrived(ended)
    assert 3_000_000 < client["bytes_up"] < 4_000_000
    assert pieces_sent_again(ended, client, 64 * 1024) < 3


def test_a_run_that_is_stopped_while_an_order_comes_down(tmp_path: Path) -> None:
    """The device lets go of it, and has its memory for the next run."""
    with weak_fleet(tmp_path, down=1_000_000, up=1_000_000) as (fleet, _):
        [device] = fleet.devices
        run = fleet.submit(CONFIG)
        fleet.until(
            "an order on its way, and a process that waits for it",
            lambda: "downloading 1." in device.log() and device.has("flwr-clientapp"),
        )
        assert fleet.provision("stop", run.number) == 0
        fleet.until(
            "an idle device",
            lambda: (
                "its run has ended" in device.log() and not device.has("flwr-clientapp")
            ),
        )
        after = fleet.submit({**CONFIG, "expert-hidden": 64})
        assert fleet.finish(after) == "finished:completed", fleet.log(after)
        [record] = after.records()
        [client] = record["clients"]
        assert record["merged"] and client["replied"], device.log()
