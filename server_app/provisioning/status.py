"""``fleet status``: what every device of a fleet is, holds and has done so far.

The SuperLink's word on who is there, where a fleet directory says how to reach one,
beside what the files of a run say; so it works beside a running server and long after
it. How that is shown is in ``status_formats``, and how it is watched in ``watcher``.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from server_app.provisioning import ProvisioningError
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.known_nodes import KnownNodes, known_nodes, silence
from server_app.provisioning.run_status import (
    DeviceRecord,
    RunStatus,
    read_status,
    run_folder,
)
from server_app.provisioning.validity import Ending, endings

MISSING = 3
"""Exit code: a device that is expected is not there, or nobody can say so."""

UNKNOWN, UNREGISTERED, WAITING = "unknown", "not registered", "not delivered"


@dataclass(frozen=True, kw_only=True)
class DeviceStatus:
    """One device now.

    Attributes
    ----------
    name : str
    state : str
        ``online`` or ``offline``; ``registered`` if it never connected; ``not
        delivered`` if its bundle is still here; ``not registered``; ``unknown`` without
        a SuperLink's word.
    expected : bool
        Whether it is on the fleet's list and its bundle was taken to it.
    age : float or None
        Seconds since the SuperLink heard of it last.
    record : DeviceRecord
        What the run says of it.
    """

    name: str
    state: str = UNKNOWN
    expected: bool = False
    age: float | None = None
    record: DeviceRecord

    @property
    def missing(self) -> bool:
        """Whether it should be there and is not.

        One that the run leaves alone for some rounds is there as long as it is online.
        """
        return self.expected and self.state not in ("online", UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class FleetStatus:
    """A fleet and a run of it now.

    Attributes
    ----------
    time : float
        Unix time in seconds.
    nodes : KnownNodes or None
        The SuperLink's word; None where no fleet is kept.
    run : RunStatus or None
    no_run : str
        Why there is none.
    devices : list of DeviceStatus
        By name.
    certificates : list of Ending
    """

    time: float
    nodes: KnownNodes | None
    run: RunStatus | None
    no_run: str = ""
    devices: list[DeviceStatus]
    certificates: list[Ending] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """Names of the devices that should be there and are not."""
        return [device.name for device in self.devices if device.missing]

    @property
    def flower_state(self) -> str:
        """Flower's word on the run; "" if there is none."""
        if self.run is None or self.nodes is None:
            return ""
        found = (r for r in self.nodes.runs if r.number == self.run.flower_run)
        return next((each.status for each in found), "")

    @property
    def code(self) -> int:
        """Exit code: ``MISSING``, or 0."""
        silent = self.nodes is not None and not self.nodes.answered
        return MISSING if self.missing or silent else 0


def fleet_status(fleet: FleetDirectory, given: Path | None) -> FleetStatus:
    """Look at a fleet and a run once.

    Parameters
    ----------
    fleet : FleetDirectory
        There need be none: a run has its files all the same.
    given : Path or None
        The run; the newest by default, of which a fleet need not have one.

    Raises
    ------
    ProvisioningError
        If there is neither fleet nor run, or one that is there cannot be read.
    """
    kept, run, no_run = fleet.exists(), None, ""
    try:
        folder = run_folder(given)
    except ProvisioningError as error:
        if given is not None or not kept:
            raise
        no_run = str(error)
    else:
        run = read_status(folder)
    records = dict(run.devices) if run else {}
    if not kept:
        return FleetStatus(
            time=time.time(),
            nodes=None,
            run=run,
            devices=[
                DeviceStatus(name=n, record=r) for n, r in sorted(records.items())
            ],
        )
    nodes, members = known_nodes(fleet, runs=True), fleet.members()
    devices = []
    for name in sorted(records.keys() | members.devices.keys()):
        record = records.get(name) or DeviceRecord(name)
        node, listed = nodes.devices.get(name), name in members.devices
        waits = listed and fleet.bundle_file(name).exists()
        state, age = UNREGISTERED, None
        if not nodes.answered or not listed:
            state = UNKNOWN
        elif node is not None:
            state, age = node.status, silence(node)
        if waits and age is None and nodes.answered:
            state = WAITING
        devices.append(
            DeviceStatus(
                name=name,
                state=state,
                # A bundle that lies here though its device was heard of is a new one.
                expected=listed and (not waits or age is not None),
                age=age,
                record=record,
            )
        )
    return FleetStatus(
        time=time.time(),
        nodes=nodes,
        run=run,
        no_run=no_run,
        devices=devices,
        certificates=list(endings(fleet)),
    )
