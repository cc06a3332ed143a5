"""The fleet on one machine of docs/your-data.md, typed as it is printed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docs.pages import blocks_of
from tests.ports import free_port

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(1800)]


class Terminals:
    """Shells in one directory; what they have started ends with them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(place),
            "FLWR_HOME": str(place / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
        }
        self._open: list[subprocess.Popen[str]] = []

    def type(self, text: str) -> subprocess.Popen[str]:
        log = (self.place / f"terminal-{len(self._open)}.log").open("w")
        process = subprocess.Popen(
            ["bash", "-euc", text],
            cwd=self.place,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._open.append(process)
        return process

    def said(self) -> str:
        logs = sorted(self.place.glob("terminal-*.log"))
        return "\n".join(f"{log.name}\n{log.read_text()[-3000:]}" for log in logs)

    def close(self) -> None:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            for process in reversed(self._open):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, ending)
            time.sleep(3)
        for process in self._open:
            process.wait(10)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    opened = Terminals(tmp_path)
    try:
        yield opened
    finally:
        opened.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_printed_commands_train(terminals: Terminals) -> None:
    page = REPOSITORY / "docs/your-data.md"
    printed = [
        block.text
        for block in blocks_of(page)
        if block.elsewhere.endswith(Path(__file__).name)
    ]
    port = free_port()
    here = {
        "--host 127.0.0.1\n": f"--host 127.0.0.1 --superlink 127.0.0.1:{port}\n",
        "8000": str(port),
        "8001": str(port + 1),
    }
    for before, after in here.items():
        assert any(before in text for text in printed)
        printed = [text.replace(before, after) for text in printed]
    link, executor, devices = printed
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, terminals.place)
    for name in ("common", "client_app", "server_app"):
        shutil.copytree(REPOSITORY / name, terminals.place / name)
    make_sites = f"python {REPOSITORY}/examples/own_data/make_sites.py demo"
    assert terminals.type(make_sites).wait(200) == 0, terminals.said()
    server = terminals.type(link)
    until = time.monotonic() + 200
    while not listens(port):
        assert server.poll() is None and time.monotonic() < until, terminals.said()
        time.sleep(0.5)
    terminals.type(executor)
    assert terminals.type(devices).wait(1500) == 0, terminals.said()
    assert list(terminals.place.glob("results/*/model.safetensors")), terminals.said()
