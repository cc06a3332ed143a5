"""Flower's own program and our app, cold and warm: the same answers."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from flwr.app import Message, RecordDict

from benchmarks.local_supernode import ROOT, LocalSuperNode
from client_app.device.resident import starting
from common import wire
from server_app.launcher.superlink import flower_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not starting._able(), reason="nothing is resident here"),
]


class Device:
    """A message's process as a SuperExec starts it; this process is the SuperExec."""

    def __init__(self, node: LocalSuperNode, folder: Path, keep_warm: float) -> None:
        self.node = node
        variables = starting.new_variables(keep_warm)
        self.private = Path(variables.get("EXPERTFLEET_RESIDENT", folder / "none"))
        self._log = folder / f"log-{keep_warm}"
        self._env = {**flower_environment(), **variables, "FLWR_HOME": str(folder)}

    def start(self) -> "subprocess.Popen[bytes]":
        parent = ["--parent-pid", str(os.getpid())]
        where = ["--runtime-api-address", self.node.address, "--insecure"]
        with self._log.open("a") as log:
            return subprocess.Popen(
                ["flwr-clientapp", *where, "--token", "0" * 64, *parent],
                env=self._env,
                stdout=log,
                stderr=log,
            )

    def answer(self) -> Message:
        assert self.start().wait(timeout=600) == 0, self.log()
        reply = self.node.reply
        assert reply is not None and not reply.has_error(), self.log()
        return reply

    def log(self) -> str:
        return self._log.read_text()

    @property
    def keeper(self) -> psutil.Process:
        # Its forks have its command line.
        found = {
            each.pid: each
            for each in psutil.process_iter(["cmdline"])
            if {str(self.private), "-c"} <= {*(each.info["cmdline"] or [])}
        }
        [pid] = [pid for pid, each in found.items() if each.ppid() not in found]
        return found[pid]


def until_warm(device: Device) -> int:
    """Wait for the template; return its process."""
    for _ in range(3000):
        children = device.keeper.children()
        if children and children[0].status() == psutil.STATUS_SLEEPING:
            return int(children[0].pid)
        time.sleep(0.1)
    raise AssertionError(device.log())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LocalSuperNode]:
    with LocalSuperNode() as node:
        node.node_config |= {"name": "warm", "state-dir": str(tmp_path / "state")}
        yield node


def ask(node: LocalSuperNode, **config: Any) -> None:
    node.put(RecordDict(), "query", {"dataset": "digits", "num-rounds": 3, **config})


def steady(reply: Message) -> dict[str, Any]:
    """What an answer says that does not depend on the moment."""
    found = wire.decode_query_reply(reply.content).model_dump()
    moment = ("seconds", "memory", "process", "flops", "temperature", "disk", "throttl")
    return {k: v for k, v in found.items() if not k.startswith(moment)}


def process_bytes(reply: Message) -> int:
    found = wire.decode_query_reply(reply.content).process_bytes
    assert found
    return found


def test_warm_answers_are_those_of_a_process_of_its_own(
    node: LocalSuperNode, tmp_path: Path
) -> None:
    plain = Device(node, tmp_path, 0)
    ask(node)
    reply = plain.answer()
    expected, alone = steady(reply), process_bytes(reply)
    assert expected["client"] == "warm" and expected["num_examples"] > 0

    device = Device(node, tmp_path, 900)
    try:
        ask(node)
        assert steady(device.answer()) == expected
        template = until_warm(device)
        for _ in range(2):
            ask(node)
            reply = device.answer()
            assert steady(reply) == expected
            # What it counts as its own decides how much it is given to hold.
            assert abs(process_bytes(reply) / alone - 1) < 0.2
        assert until_warm(device) == template

        # An app that answers with something else is another run's, and is believed.
        other = tmp_path / "other"
        shutil.copytree(
            ROOT, other, ignore=lambda where, names: _not_the_app(where, names)
        )
        with (other / "client_app/app.py").open("a") as file:
            file.write("\n# Other code.\n")
        node.change_app(other)
        ask(node)
        changed = steady(device.answer())
        assert changed.pop("code_hash") != expected["code_hash"]
        assert changed.items() <= expected.items()
        node.change_app(ROOT)
        ask(node)
        assert steady(device.answer()) == expected
        assert "kept ready" not in device.log()
    finally:
        device.keeper.kill()
        shutil.rmtree(device.private)


def _not_the_app(where: str, names: list[str]) -> list[str]:
    kept = {"pyproject.toml", "README.md", "LICENSE", "common", "client_app"}
    top = {"server_app"} | kept
    return [
        name
        for name in names
        if (Path(where) == ROOT and name not in top) or name == "__pycache__"
    ]
