"""A SuperLink of one's own, and Flower's command line talking to it."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from server_app.launcher.processes import Sandbox

#: Name of the connection in the private Flower configuration.
_LINK = "private"
_START_TIMEOUT = 120.0  # seconds; a Raspberry Pi imports for a long time
_POLL = 0.1  # seconds


class LaunchError(RuntimeError):
    """The run did not complete; the message is the reason, on one line."""


class SuperLink:
    """A SuperLink on a free loopback port, with in-memory state.

    Parameters
    ----------
    sandbox : Sandbox
        Where it lives; it is stopped together with the sandbox.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._log = sandbox.root / "superlink.log"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and return once it listens.

        Raises
        ------
        LaunchError
            If it exits or does not listen in time.
        """
        port = _free_port()
        (self._sandbox.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_LINK}"\n\n[superlink.{_LINK}]\n'
            f'address = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        command = ["flower-superlink", "--insecure", "--simulation"]
        command += ["--isolation", "subprocess"]
        command += ["--disable-runtime-dependency-installation"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with self._log.open("w") as file:
            self._process = self._sandbox.start(command, file.fileno())
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._listens():
            self._check_alive()
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"the SuperLink did not start within {_START_TIMEOUT:.0f} s"
                )
            time.sleep(_POLL)

    def flwr_run(self, app: Path, config_file: Path, federation: str) -> Iterator[str]:
        """Run an app and yield the raw lines of its log until the stream ends."""
        command = ["flwr", "run", str(app), _LINK, "--stream"]
        command += ["--run-config", str(config_file)]
        command += ["--federation-config", federation]
        # Unbuffered: a round's line appears when the round ends, also through a pipe.
        flwr = self._sandbox.start(command, subprocess.PIPE, PYTHONUNBUFFERED="1")
        assert flwr.stdout is not None
        yield from flwr.stdout
        flwr.wait()

    def outcome(self, run_id: str) -> tuple[str, str]:
        """Wait for the end of a run; return its final status and the details.

        The log stream can end before the run does (a dropped connection), and
        ``flwr run`` exits 0 in any case: only this record tells.
        """
        command = ["flwr", "list", _LINK, "--run-id", run_id, "--format", "json"]
        while True:
            self._check_alive()
            process = self._sandbox.start(command, subprocess.PIPE)
            text, _ = process.communicate(timeout=_START_TIMEOUT)
            try:
                record = json.loads(text[text.index("{") :])["runs"][0]
            except (ValueError, LookupError):
                raise LaunchError(f"`flwr list` answered {text.strip()!r}") from None
            if str(record["status"]).startswith("finished"):
                details = str(record["status-details"])
                return str(record["status"]), "" if details == "N/A" else details
            time.sleep(10 * _POLL)

    def _listens(self) -> bool:
        assert self._process is not None
        # Asking the process, not the port: whoever answers there is surely ours.
        with suppress(psutil.Error):
            connections = psutil.Process(self._process.pid).net_connections("tcp")
            return any(each.status == psutil.CONN_LISTEN for each in connections)
        return False

    def _check_alive(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            return
        lines = self._log.read_text("utf-8", "replace").splitlines()
        print("\n".join(lines[-20:]), file=sys.stderr)
        raise LaunchError(
            f"the SuperLink exited with code {self._process.returncode}: "
            f"{last_line(lines)}"
        )


def flower_environment() -> dict[str, str]:
    """Return the caller's environment, made fit for a private Flower."""
    env = dict(os.environ)
    # A Ray cluster that happens to run would be joined, with its own code and paths.
    env.pop("RAY_ADDRESS", None)
    # Flower finds its own programs through PATH; .venv need not be activated.
    env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), env.get("PATH", "")])
    # A proxy must not be asked for the loopback.
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, [env.get(name), "127.0.0.1", "localhost"]))
    return env | {
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def last_line(lines: Sequence[str]) -> str:
    """Return the last line that is not blank."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
