"""The SuperLink's word on the devices of a fleet: who is there, by name."""

import time
from dataclasses import dataclass, field

from common.flower_internals import HEARTBEAT_PATIENCE, NodeInfo
from server_app.provisioning import ProvisioningError
from server_app.provisioning.certificates import openssh_to_pem
from server_app.provisioning.control_api import (
    ControlAPI,
    FlowerRun,
    UnreachableError,
)
from server_app.provisioning.directory import FleetDirectory


@dataclass(frozen=True, kw_only=True)
class KnownNodes:
    """What a SuperLink says of the nodes registered with it.

    Attributes
    ----------
    address : str
        Its own.
    problem : str
        Why it did not say anything; "" if it did.
    devices : dict of str to NodeInfo
        Those of the fleet, by name.
    strangers : list of NodeInfo
        Those whose key is none of the fleet's.
    runs : list of FlowerRun
        The newest, where they were asked for.
    """

    address: str
    problem: str = ""
    devices: dict[str, NodeInfo] = field(default_factory=dict)
    strangers: list[NodeInfo] = field(default_factory=list)
    runs: list[FlowerRun] = field(default_factory=list)

    @property
    def answered(self) -> bool:
        """Whether the SuperLink answered."""
        return not self.problem

    def stranger_lines(self) -> list[str]:
        """Return a line for each stranger, with what shuts it out."""
        return [
            f"stranger: node {node.node_id} calls itself {node.name!r}, "
            f"{node.status}; its key is none of this fleet: "
            f"`flwr supernode unregister {node.node_id}`"
            for node in self.strangers
        ]


def known_nodes(fleet: FleetDirectory, *, runs: bool = False) -> KnownNodes:
    """Ask the SuperLink of a fleet; it may be away.

    Parameters
    ----------
    fleet : FleetDirectory
    runs : bool
        Whether to ask for its newest runs as well.

    Raises
    ------
    ProvisioningError
        If there is no fleet here.
    """
    members = fleet.members()
    try:
        with ControlAPI(members.control, fleet.authority_file) as api:
            nodes, newest = api.nodes(), api.runs() if runs else []
    except UnreachableError as error:
        problem = f"{error}: is it started?"
        return KnownNodes(address=members.control, problem=problem)
    except ProvisioningError as error:
        return KnownNodes(address=members.control, problem=str(error))
    names = {openssh_to_pem(d.public_key): n for n, d in members.devices.items()}
    return KnownNodes(
        address=members.control,
        devices={names[n.public_key]: n for n in nodes if n.public_key in names},
        strangers=[node for node in nodes if node.public_key not in names],
        runs=newest,
    )


def silence(node: NodeInfo) -> float | None:
    """Return the seconds since the last sign of life; None if there never was one.

    Flower notes until when a sign of life is good for, which is ``HEARTBEAT_PATIENCE``
    times as long as from one to the next. Of one that said goodbye this is as much too
    long: the two cannot be told apart.
    """
    if not node.HasField("online_until"):
        return None
    last = node.online_until - HEARTBEAT_PATIENCE * node.heartbeat_interval
    return max(0.0, time.time() - last)
