"""``fleet check``: whether all of a fleet is well, for a person or for a timer.

Certificates by the fleet's own files, devices by the SuperLink's word, and versions by
what devices said of themselves in the newest run.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.flower_internals import NodeInfo
from server_app.provisioning import ProvisioningError
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.known_nodes import KnownNodes, known_nodes, silence
from server_app.provisioning.run_status import run_folder
from server_app.provisioning.validity import AUTHORITY, endings, warnings
from server_app.run_folder.run_files import RunFileError, read_facts

SILENT_MINUTES = 60.0
"""A device that starts again, or loses its network for a while, is not silent yet."""


@dataclass
class Checked:
    """One thing of the fleet.

    Attributes
    ----------
    name : str
        A device's, or what else it is.
    facts : dict
        What is known of it, as ``--json`` has it.
    problems : list of str
        What is wrong, with what to do; empty if all is well.
    """

    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return what people read."""
        known = [
            f"{key.replace('_', ' ')} {value}"
            for key, value in self.facts.items()
            if value != ""
        ]
        what = "; ".join(self.problems) or ", ".join(known)
        return f"{'!!' if self.problems else 'ok'}  {self.name:<12}  {what}"


def check(fleet: FleetDirectory, run: Path | None, silent: float) -> list[Checked]:
    """Look at everything.

    Parameters
    ----------
    fleet : FleetDirectory
    run : Path or None
        Whose devices' versions are looked at; the newest in ``./results`` by default.
    silent : float
        Minutes after which a device that is not heard of is wrong.

    Raises
    ------
    ProvisioningError
        If there is no fleet here, or no such run.
    """
    found, devices = _certificates(fleet)
    link, nodes = _superlink(fleet)
    here = Checked("versions", {"flwr": version("flwr")})
    facts = _facts(run, here)
    for name in fleet.members().devices:
        if nodes.answered:
            waits = fleet.bundle_file(name).exists()
            _heard(devices[name], nodes.devices.get(name), waits, 60 * silent)
        _versions(devices[name], facts, here)
    link.problems += nodes.stranger_lines()
    return [*found, link, here, *devices.values()]


def text(found: list[Checked]) -> str:
    """Return a line for each."""
    return "\n".join(each.line() for each in found)


def as_json(found: list[Checked]) -> str:
    """Return one object: ``ok``, and ``checks`` with all there is."""
    well = not any(each.problems for each in found)
    return json.dumps({"ok": well, "checks": [asdict(each) for each in found]})


def _certificates(fleet: FleetDirectory) -> tuple[list[Checked], dict[str, Checked]]:
    """Return authority and server, and every device by name."""
    ends = list(endings(fleet))
    said = {each.problem for each in ends}
    found, devices = [], {}
    for each in ends:
        name = each.device or ("authority" if each.what == AUTHORITY else "server")
        checked = Checked(name, {"days_left": each.days})
        if each.problem:
            checked.problems.append(each.problem)
        if each.device:
            devices[name] = checked
        else:
            found.append(checked)
    # A change of the authority that nobody has finished.
    found[0].problems += [each for each in warnings(fleet) if each not in said]
    return found, devices


def _superlink(fleet: FleetDirectory) -> tuple[Checked, KnownNodes]:
    """Return its line, and what it says."""
    nodes = known_nodes(fleet)
    link = Checked("SuperLink", {"address": nodes.address})
    if not nodes.answered:
        link.problems.append(nodes.problem)
        return link, nodes
    known = [*nodes.devices.values(), *nodes.strangers]
    link.facts["online"] = sum(node.status == "online" for node in known)
    return link, nodes


def _heard(device: Checked, node: NodeInfo | None, waits: bool, limit: float) -> None:
    """Note whether a device is connected, or for how long it has not been."""
    if node is None:
        device.facts["state"] = "not registered"
        device.problems.append("its key is not registered: `fleet register`")
        return
    device.facts["state"] = node.status
    if node.status == "online":
        return
    if silence(node) is None:
        if waits:
            device.facts["state"] = "its bundle has not been brought there"
        else:
            device.problems.append(
                f"never heard of since it was registered on {node.registered_at[:10]}: "
                f"`python -m client_app doctor BUNDLE` on it"
            )
        return
    silent = silence(node) or 0.0
    device.facts["silent_seconds"] = round(silent)
    if silent > limit:
        device.problems.append(
            f"not heard of for {_span(silent)}: `python -m client_app doctor BUNDLE` "
            "on it"
        )


def _facts(run: Path | None, here: Checked) -> Mapping[str, Any]:
    """Return what a run says, nothing if there has been none yet."""
    try:
        folder = run_folder(run)
        facts = read_facts(folder)
    except RunFileError as error:
        raise ProvisioningError(str(error)) from None
    except ProvisioningError:
        if run is not None:
            raise
        return {}
    here.facts |= {"run": folder.name, "code": str(facts.get("code_hash", ""))}
    return facts


def _versions(device: Checked, facts: Mapping[str, Any], here: Checked) -> None:
    """Compare what a device said in the run with what runs here."""
    said = facts.get("clients", {}).get(device.name)
    if not isinstance(said, dict):
        return
    flwr, code = str(said.get("flwr", "")), str(said.get("code_hash", ""))
    device.facts |= {"flwr": flwr, "code": code}
    mine, whole = here.facts["flwr"], here.facts["code"]
    # All of Flower's programs have to agree on the first two numbers.
    if flwr and flwr.split(".")[:2] != mine.split(".")[:2]:
        device.problems.append(
            f"has Flower {flwr}, this server {mine}: update the device"
        )
    if code and whole and code != whole:
        device.problems.append(f"ran other code ({code}) than its server ({whole})")


def _span(seconds: float) -> str:
    for name, size in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 60:.0f} minutes"
