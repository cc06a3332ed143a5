"""``fleet check``: what is wrong, in text, in JSON and by its exit code."""

import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from common.flower_internals import NodeInfo
from server_app.provisioning.certificates import openssh_to_pem
from server_app.provisioning.control_api import ControlAPI
from tests.server_app.provisioning.fleet_operator import Operator

HOUR = 3600.0


@pytest.fixture
def nodes(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> list[NodeInfo]:
    """A fleet of three devices, and what a SuperLink says of them."""
    operator.init()
    operator.types("add", "pi0", "pi1", "pi2")
    found = [
        NodeInfo(
            public_key=openssh_to_pem(device.public_key),
            name=name,
            status="offline",
            registered_at="2026-11-30T10:00:00+00:00",
        )
        for name, device in operator.fleet.members().devices.items()
    ]
    monkeypatch.setattr(ControlAPI, "nodes", lambda self: found)
    found[0].status = "online"
    found[1].online_until = time.time() - 3 * HOUR
    return found


def checked(operator: Operator, *arguments: str, code: int) -> dict[str, Any]:
    operator.types("check", "--json", *arguments, code=code)
    said = json.loads(operator.said)
    assert said["ok"] == (code == 0)
    return {each["name"]: each for each in said["checks"]}


def wrong(found: dict[str, Any]) -> dict[str, list[str]]:
    return {name: each["problems"] for name, each in found.items() if each["problems"]}


def test_devices_that_are_silent(operator: Operator, nodes: list[NodeInfo]) -> None:
    found = checked(operator, code=1)
    assert list(found) == [
        *("authority", "server", "SuperLink", "versions", "pi0", "pi1", "pi2")
    ]
    assert found["SuperLink"]["facts"]["online"] == 1
    assert found["pi0"]["facts"] == {"days_left": 364, "state": "online"}
    assert abs(found["pi1"]["facts"]["silent_seconds"] - 3 * HOUR) < 60
    assert list(wrong(found)) == ["pi1"]
    assert wrong(found)["pi1"][0].startswith("not heard of for 3 hours: ")
    # Its bundle still lies here: nobody has expected it yet.
    assert found["pi2"]["facts"]["state"] == "its bundle has not been brought there"
    assert checked(operator, "--silent", "200", code=0)
    operator.fleet.bundle_file("pi2").unlink()
    found = checked(operator, "--silent", "200", code=1)
    assert wrong(found)["pi2"][0].startswith("never heard of since it was registered")
    nodes.pop()
    stranger = NodeInfo(public_key=b"x", name="pi9", status="online", node_id=7)
    nodes.append(stranger)
    found = checked(operator, "--silent", "200", code=1)
    assert wrong(found)["pi2"] == ["its key is not registered: `fleet register`"]
    assert "`flwr supernode unregister 7`" in wrong(found)["SuperLink"][0]
    lines = operator.types("check", code=1) or operator.said
    assert "!!  pi1" in lines and "ok  pi0" in lines
    assert "at least 0" in operator.types("check", "--silent", "-1", code=2)


def test_certificates_that_end_soon(
    operator: Operator, nodes: list[NodeInfo], clock: Callable[[float], None]
) -> None:
    nodes[1].status = "online"
    assert checked(operator, code=0)["server"]["facts"] == {"days_left": 824}
    clock(320)
    found = wrong(checked(operator, code=1))
    cure = "the client certificate of pi0 ends in 44 days: `fleet renew pi0`"
    assert found["pi0"] == [cure]
    assert list(found) == ["pi0", "pi1", "pi2"]
    operator.types("renew", "--due")
    clock(790)
    assert "server" in wrong(checked(operator, code=1))
    operator.types("renew", "--due")
    operator.types("renew", "--ca")
    found = wrong(checked(operator, code=1))
    assert found == {"authority": [found["authority"][0]]}
    assert "a change of the authority is under way" in found["authority"][0]


def test_versions_of_devices(
    operator: Operator, nodes: list[NodeInfo], tmp_path: Path
) -> None:
    nodes[1].status = "online"
    folder = tmp_path / "run"
    folder.mkdir()
    flwr, code = version("flwr"), "a" * 16
    clients = {
        "pi0": {"flwr": flwr, "code_hash": code},
        "pi1": {"flwr": "1.40.0", "code_hash": code},
        "pi2": {"code_hash": "b" * 16},  # a device of before it said its version
    }
    facts = {"run": "run", "settings": {}, "code_hash": code, "clients": clients}
    (folder / "run.json").write_text(json.dumps(facts))
    found = checked(operator, str(folder), code=1)
    assert found["versions"]["facts"] == {"flwr": flwr, "run": "run", "code": code}
    assert wrong(found) == {
        "pi1": [f"has Flower 1.40.0, this server {flwr}: update the device"],
        "pi2": [f"ran other code ({'b' * 16}) than its server ({code})"],
    }
    assert "not the directory of a run" in operator.types("check", "no", code=2)


def test_a_superlink_that_does_not_answer(operator: Operator) -> None:
    operator.init()
    operator.types("add", "pi0")
    found = checked(operator, code=1)
    assert list(wrong(found)) == ["SuperLink"]
    assert found["pi0"]["facts"] == {"days_left": 364}
