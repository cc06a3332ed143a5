"""A real fleet on the loopback: TLS, registered keys, every program its own process.

What one program can do and suffer is in ``tests.deployment.program``.
"""

import json
import sqlite3
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest
import tomli_w
from flwr.proto.control_pb2 import ListRunsRequest

from common import flower_internals
from server_app.__main__ import main
from server_app.provisioning import ProvisioningError
from server_app.provisioning.control_api import ControlAPI
from server_app.provisioning.directory import FleetDirectory
from tests.deployment.program import PATIENCE, Program
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
# Flower's command line takes a processor for three seconds to start: asked all the
# time, it would leave the fleet little to train with. So it is the Control API that is.
POLL = 0.2

Condition = Callable[[], Any]


class Run:
    """One submitted run, seen through what it writes.

    Parameters
    ----------
    number : str
        Flower's.
    output : Path
        Its ``output-dir``.
    """

    def __init__(self, number: str, output: Path) -> None:
        self.number = number
        self.output = output

    @property
    def folder(self) -> Path:
        """Its directory, once it is there."""
        [found] = self.output.iterdir()
        return found

    def records(self) -> list[dict[str, Any]]:
        """The rounds done so far."""
        lines = [
            path.read_text().splitlines()
            for path in self.output.glob("*/metrics.jsonl")
        ]
        return [json.loads(line) for line in (lines[0] if lines else [])]


class Fleet:
    """A SuperLink, its SuperExec and some SuperNodes.

    Parameters
    ----------
    folder : Path
        Where keys, the database and the devices' state go.
    devices : int
        SuperNodes; device ``i`` has partition ``i`` and its own state directory.
    data : sequence of Path
        Data of the devices' own, one path each; then they have no partition.
    port : int
        Where the SuperLink listens; 0 for a free one.
    reached_at : str
        HOST:PORT where devices find a proxy before it; "" for none.
    enter : sequence of str
        What the command of a device begins with.

    Attributes
    ----------
    link, executor : Program
        SuperLink and the SuperExec that runs ServerApps.
    devices : list of Program
    patience : float
        Seconds within which anything that is waited for must have come.
    """

    patience = PATIENCE

    def __init__(
        self,
        folder: Path,
        devices: int = 3,
        data: Sequence[Path] = (),
        *,
        port: int = 0,
        reached_at: str = "",
        enter: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._database = folder / "state.db"
        self._stack = ExitStack()
        self._submitted = 0
        self._enter = [*enter]
        self._reached_at = reached_at
        address = f"127.0.0.1:{port or free_port()}"
        self.address = address
        self.keys = FleetDirectory(folder / "keys")
        names = [f"client-{number}" for number in range(devices)]
        self._apps = f"127.0.0.1:{free_port()}"
        self._secret = str(self.keys.path / "superexec.secret")
        hosts = ["--host", "127.0.0.1"]
        if reached_at:
            hosts += ["--host", reached_at.split(":")[0]]
        assert self.provision("init", *hosts, "--superlink", address) == 0
        assert self.provision("init", "--apps", self._apps) == 0
        if data:
            for name, path in zip(names, data, strict=True):
                assert self.provision("add", name, "--data-path", str(path)) == 0
        else:
            assert self.provision("init", "--size", str(devices)) == 0
            assert self.provision("add", *names) == 0
        trust = ["--root-certificates", str(self.keys.authority_file)]
        self.link = self.program("superlink", self._link_command(address))
        self.executor = self.program(
            "superexec",
            [
                *("flower-superexec", "--runtime-api-address", address, *trust),
                *("--superexec-auth-secret-file", self._secret),
            ],
        )
        self.devices = [
            self.program(name, self.device_command(self.keys, name, number))
            for number, name in enumerate(names)
        ]
        self._flwr = self.program("flwr", ["flwr"])
        (self._flwr.home / "config.toml").write_text(
            f'[superlink.lab]\naddress = "{address}"\n'
            f'root-certificates = "{self.keys.authority_file}"\n'
        )

    def program(self, name: str, command: Sequence[str]) -> Program:
        """Prepare a program that ends with the fleet at the latest."""
        return Program(name, command, self._stack)

    def provision(self, *arguments: str) -> int:
        """Run a ``fleet`` command; return its exit code."""
        return main(["fleet", "--dir", str(self.keys.path), *arguments])

    def operator(self, *arguments: str) -> Program:
        """Prepare a ``fleet`` command as a process of its own."""
        fleet = [sys.executable, "-m", "server_app", "fleet", "--dir"]
        return self.program("operator", [*fleet, str(self.keys.path), *arguments])

    def device_command(self, keys: FleetDirectory, name: str, number: int) -> list[str]:
        """Unpack a bundle; return what starts its device."""
        bundle = self.unpack(keys, name)
        state_dir = self.state_dir(number)
        command = [*self._enter, sys.executable, "-m", "client_app", "supernode"]
        # The first imports all for every message: what others keep changes no result.
        command += ["--keep-warm", "0"] if number == 0 else []
        command += ["--state-dir", str(state_dir), str(bundle)]
        return [*command, "--", "--port", str(free_port())]

    def unpack(self, keys: FleetDirectory, name: str) -> Path:
        """Bring a bundle to its device and delete it at the server."""
        bundle = self.folder / name
        with tarfile.open(keys.bundle_file(name)) as tar:
            tar.extractall(bundle, filter="data")
        keys.bundle_file(name).unlink()
        if self._reached_at:
            file = bundle / "device.toml"
            text = file.read_text("utf-8")
            assert self.address in text
            file.write_text(text.replace(self.address, self._reached_at), "utf-8")
        return bundle

    def _link_command(self, address: str) -> list[str]:
        host, port = address.split(":")
        command = ["env", f"FLWR_SUPERGRID_API_URL=http://{self._apps}"]
        command += ["flower-superlink", "--host", host, "--port", port]
        command += ["--superexec-auth-secret-file", self._secret]
        command += ["--isolation", "process", "--enable-supernode-auth"]
        command += ["--disable-runtime-dependency-installation"]
        command += ["--database", str(self._database)]
        command += ["--ssl-ca-certfile", str(self.keys.authority_file)]
        command += ["--ssl-certfile", str(self.keys.path / "server.pem")]
        return [*command, "--ssl-keyfile", str(self.keys.path / "server.key")]

    def __enter__(self) -> Self:
        try:
            self.link.start()
            self.until("the SuperLink to answer", lambda: self.online() == 0)
            assert self.provision("register") == 0
            for program in (self.executor, *self.devices):
                program.start()
            self.until("all devices online", self._all_started)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def state_dir(self, device: int) -> Path:
        """Where a device keeps its private gates."""
        return self.folder / f"state-{device}"

    def flwr(self, *arguments: str) -> str:
        """Run Flower's command line."""
        return self._flwr.run(*arguments)

    def online(self) -> int | None:
        """Return how many devices Flower takes for connected, None if it is away."""
        try:
            with ControlAPI(self.address, self.keys.authority_file) as control:
                return sum(node.status == "online" for node in control.nodes())
        except ProvisioningError:
            return None

    def repair(self) -> None:
        """Start what an earlier test left dead, and wait for it."""
        dead = [each for each in self.programs if not each.running]
        for program in dead:
            program.start()
        if dead:
            self.until("all devices online", self.all_online)

    @property
    def programs(self) -> list[Program]:
        """Everything that is meant to keep running."""
        return [self.link, self.executor, *self.devices]

    def _all_started(self) -> bool:
        # Nothing has been killed yet: whatever has ended will not come up by waiting.
        assert all(each.running for each in self.programs), self.report()
        return self.all_online()

    def all_online(self) -> bool:
        """Whether Flower takes every device for connected."""
        return self.online() == len(self.devices)

    def lose_messages(self) -> int:
        """Take all messages to devices for delivered; return how many were not.

        What a SuperLink leaves behind that dies before it has answered a device.
        """
        with closing(sqlite3.connect(self._database)) as database, database:
            when = datetime.now(UTC).isoformat()
            change = "UPDATE message_ins SET delivered_at = ? WHERE delivered_at = ''"
            return database.execute(change, (when,)).rowcount

    def submit(self, run_config: Mapping[str, Any]) -> Run:
        """Submit a run; its ``output-dir`` is a fresh one unless it is given."""
        self._submitted += 1
        fresh = str(self.folder / f"output-{self._submitted}")
        config = {"output-dir": fresh, **run_config}
        output = Path(config["output-dir"])
        file = self.folder / f"run-config-{self._submitted}.toml"
        file.write_text(tomli_w.dumps(config))
        starts = self.operator("run", str(ROOT), "--detach", "--run-config", str(file))
        said = starts.run()
        assert said.strip().isdecimal(), f"`fleet run` said {said!r}"
        return Run(said.strip(), output)

    def status(self, run: Run) -> str:
        """Flower's word about a run: ``running``, ``finished:completed``, ..."""
        control = flower_internals.ControlHttpClient.from_server_address(
            self.address,
            insecure=False,
            root_certificates=self.keys.authority_file.read_bytes(),
            interceptors=[
                flower_internals.CliClientHttpInterceptor(),
                flower_internals.RuntimeVersionHttpInterceptor(
                    component_name="flwr CLI"
                ),
            ],
        )
        number = int(run.number)
        try:
            answer = control.ListRuns(ListRunsRequest(run_id=number))
        except httpx.HTTPError as error:
            return f"unknown: {error}"
        finally:
            control.close()
        status = answer.run_dict[number].status
        return ":".join(filter(None, (status.status, status.sub_status)))

    def log(self, run: Run) -> str:
        """What the ServerApp of a run has printed."""
        return self.flwr("log", run.number, "lab", "--show")

    def finish(self, run: Run) -> str:
        """Wait for the end of a run; return its final status."""
        status = ""

        def ended() -> bool:
            nonlocal status
            status = self.status(run)
            return status.startswith("finished")

        self.until("the end of the run", ended, every=1.0)
        return status

    def until(self, what: str, condition: Condition, every: float = POLL) -> None:
        """Wait for something; fail with the ends of all logs if it never comes."""
        deadline = time.monotonic() + self.patience
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {self.patience:.0f} s for {what}\n{self.report()}")
            time.sleep(every)

    def report(self) -> str:
        """The state of every program and the end of its log."""
        return "\n".join(program.tail() for program in self.programs)
