"""A fleet of one device behind a weak link, and what one round of 12 MB costs it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deployment.fleet import Fleet, Run
from tests.links.network import Delay, Link, own_network

SUPERLINK, PROXY = 9000, 9001
"""Ports, in a network that nobody else is in."""

CONFIG: dict[str, Any] = {
    "num-experts": 1,
    "expert-capacity": 1,
    "expert-hidden": 40_960,  # one expert of 12.3 MB
    "num-rounds": 1,
    "local-epochs": 1,
    "train-samples": 100,
    "round-deadline": 2400.0,
}

POLL = 2.0


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A link that goes in the middle.

    Attributes
    ----------
    way : {"down", "up"}
    after : float
        MB that this way has carried for the message before it goes.
    seconds : float
    """

    way: str
    after: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that is over.

    Attributes
    ----------
    status : str
    run : Run
    log : str
        What the ServerApp has printed.
    said : str
        What the device has.
    seconds : float
        From its submission.
    carried : tuple of int
        Bytes that the link has carried for it, down and up.
    """

    status: str
    run: Run
    log: str
    said: str
    seconds: float
    carried: tuple[int, int]


@contextmanager
def weak_fleet(
    folder: Path, *, down: int, up: int, delay: float = 0.0
) -> Iterator[tuple[Fleet, Link]]:
    """Start a fleet whose one device is behind a link of so many bits per second.

    Parameters
    ----------
    folder : Path
    down, up : int
    delay : float
        Seconds, one way.
    """
    with own_network(), ExitStack() as stack:
        link = Link(1, down, up, stack)
        Delay((link.server, PROXY), ("127.0.0.1", SUPERLINK), delay, stack)
        fleet = Fleet(
            folder,
            1,
            port=SUPERLINK,
            reached_at=f"{link.server}:{PROXY}",
            enter=link.enter,
        )
        yield stack.enter_context(fleet), link


def one_round(
    fleet: Fleet,
    link: Link,
    config: Mapping[str, Any],
    cut: Cut | None = None,
    limit: float = 2400.0,
) -> Ended:
    """Run one round of 12 MB, and cut the link on its way.

    Parameters
    ----------
    fleet : Fleet
    link : Link
    config : mapping
        On top of :data:`CONFIG`.
    cut : Cut or None
    limit : float
        Seconds after which the run is given up as it is.
    """
    before = link.carried()
    began = time.monotonic()
    run = fleet.submit({**CONFIG, **config})
    [device] = fleet.devices

    def carried() -> tuple[int, int]:
        now = link.carried()
        return now[0] - before[0], now[1] - before[1]

    start: int | None = None
    while not (status := fleet.status(run)).startswith("finished"):
        if time.monotonic() - began > limit:
            break
        if cut is not None:
            passed = carried()[cut.way == "up"]
            # What comes before the order: the app, and the question who is there.
            if start is None and "Receiving: train message" in device.log():
                start = passed
            if start is not None and (passed - start) / 1e6 > cut.after:
                link.cut()
                time.sleep(cut.seconds)
                link.mend()
                cut = None
        time.sleep(POLL)
    return Ended(
        status=status,
        run=run,
        log=fleet.log(run),
        said=device.log(),
        seconds=time.monotonic() - began,
        carried=carried(),
    )
