"""Three devices with one trouble each: a slow line, a wrong clock, a power cut.

The run goes on with those that are there; what comes late is merged once; the logs say
what happened to whom.
"""

import re
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.fleet import Fleet, Run
from tests.deployment.program import PATIENCE, Program
from tests.links.network import Delay, Link, own_network, skip_without_namespaces
from tests.links.weak_fleet import PROXY, SUPERLINK

pytestmark = [pytest.mark.links, pytest.mark.timeout(2400)]

SLOW, WRONG, KILLED = range(3)
AHEAD = 3600.0
CONFIG: dict[str, Any] = {
    "num-experts": 2,
    "expert-capacity": 1,
    "expert-hidden": 2_000,  # an expert of 0.6 MB: 19 s at 256 kbit/s, either way
    "num-rounds": 30,
    "local-epochs": 1,
    "train-samples": 100,
    "round-deadline": 25.0,
    "late-replies": "merge",
    "max-staleness": 30,
    "eval-every": 30,
}

CLOCK = """
import datetime, pathlib, time
_real, _file = time.time, pathlib.Path({file!r})
def _ahead():
    return float(_file.read_text())
class _Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, _datetime)
_datetime = datetime.datetime
class _Shifted(_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + datetime.timedelta(seconds=_ahead())
time.time = lambda: _real() + _ahead()
datetime.datetime = _Shifted
"""
"""What makes a Python process take another time for the time: ``sitecustomize``."""


class Troubled(Fleet):
    """Three devices, the first and the last behind lines of their own."""

    patience = 3 * PATIENCE  # thirty rounds, half of which last their whole deadline

    def all_online(self) -> bool:
        """Whether those whose clock is right are there."""
        return self.online() == len(self.devices) - 1

    def _all_started(self) -> bool:
        return self.all_online()


class Late:
    """Whether a device is in the middle of an upload whose round is over.

    Parameters
    ----------
    device : Program
    run : Run
    """

    LEFT = 12
    """Seconds that the rest of the upload takes at the least, when last spoken of."""

    def __init__(self, device: Program, run: Run) -> None:
        self._device, self._run = device, run
        self._rounds = 0  # that were done when no upload was under way

    def __call__(self) -> bool:
        said = re.findall(r"uploaded|uploading .* (\d+) s left", self._device.log())
        rounds = len(self._run.records())
        if not said or not said[-1]:
            self._rounds = rounds
            return False
        return int(said[-1]) >= self.LEFT and rounds > self._rounds


@pytest.fixture(autouse=True)
def namespaces() -> None:
    skip_without_namespaces()


def shifted(folder: Path) -> tuple[Path, list[str]]:
    """Return the file that says how far a clock is ahead, and what uses that clock."""
    folder.mkdir()
    file = folder / "ahead"
    file.write_text(str(AHEAD))
    (folder / "sitecustomize.py").write_text(CLOCK.format(file=str(file)))
    return file, ["env", f"PYTHONPATH={folder}"]


def merged(records: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """Return whose replies were merged: to the order of which round, and in which."""
    return [
        (client["client"], client["order_round"], record["round"])
        for record in records
        for client in record["clients"]
        if client["replied"]
    ]


def test_a_slow_line_a_wrong_clock_and_a_power_cut(tmp_path: Path) -> None:
    assert sys.flags.no_site == 0
    clock, other_time = shifted(tmp_path / "clock")
    with own_network(), ExitStack() as stack:
        slow = Link(1, 256_000, 256_000, stack)
        weak_up = Link(3, 2_000_000, 128_000, stack)
        # Devices know the server by one name.
        Delay((slow.server, PROXY), ("127.0.0.1", SUPERLINK), 0.0, stack)
        fleet = Troubled(
            tmp_path, 3, port=SUPERLINK, reached_at=f"{slow.server}:{PROXY}"
        )
        fleet.devices[SLOW].command[:0] = slow.enter
        fleet.devices[WRONG].command[:0] = other_time
        fleet.devices[KILLED].command[:0] = weak_up.enter
        reach(weak_up, slow.server)
        stack.enter_context(fleet)
        killed = fleet.devices[KILLED]
        run = fleet.submit(CONFIG)
        fleet.until(
            "an order on the slow line",
            lambda: (
                "Receiving: train message" in fleet.devices[SLOW].log()
                or fleet.status(run).startswith("finished")
            ),
        )
        clock.write_text("0")
        under_way = Late(killed, run)
        fleet.until(
            "a reply that is late and under way",
            lambda: under_way() or fleet.status(run).startswith("finished"),
        )
        assert fleet.status(run) == "running", fleet.log(run)
        before = merged(run.records())
        killed.kill()
        killed.start()
        status = fleet.finish(run)
        records, log = run.records(), fleet.log(run)
        said = [device.log() for device in fleet.devices]
    report = "\n".join([log, *said])
    assert status == "finished:completed", report
    replies = merged(records)
    # Nothing twice: to one order there is one reply, and in a round one of a client.
    orders = Counter((client, order) for client, order, _ in replies)
    rounds = Counter((client, at) for client, _, at in replies)
    assert set(orders.values()) == set(rounds.values()) == {1}, report
    of = {name: [each for each in replies if each[0] == name] for name, *_ in replies}
    # Late, and merged all the same.
    assert any(at > order for _, order, at in of["client-0"]), report
    assert "client-1" not in {name for name, *_ in before[:1]}
    # Its clock put right, it came in the middle of the run.
    assert of["client-1"], report
    assert "waiting: this device's clock is 60 minutes ahead of the server's" in said[1]
    # What it had on its way was lost with its power; it was asked again and answered.
    after = [each for each in of["client-2"] if each not in before]
    assert after, report
    told = [record["notes"] + [*record["rejected"].items()] for record in records]
    assert any("client-2" in str(each) for each in told), report


def reach(link: Link, server: str) -> None:
    """Let a device behind a link use an address of the server on another one."""
    import subprocess

    route = ["ip", "route", "add", f"{server}/32", "via", link.server]
    subprocess.run([*link.enter, *route], check=True)
