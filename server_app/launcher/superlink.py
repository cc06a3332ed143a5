"""A SuperLink of one's own, and Flower's command line talking to it."""

import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from common.proxies import usable_proxies
from server_app.launcher.processes import Sandbox

_INFO = "INFO :      "  # Flower's prefix of ordinary progress
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: Name of the connection in the private Flower configuration.
_LINK = "private"
_START_TIMEOUT = 120.0  # seconds; a Raspberry Pi imports for a long time
_POLL = 0.1  # seconds
#: Each makes rich, click or typer colour what is not a terminal.
_COLOURS = (
    *("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS"),
    *("TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS"),
)


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
        """Run an app and yield the lines of its log, without colours, until it ends."""
        command = ["flwr", "run", str(app), _LINK, "--stream"]
        command += ["--run-config", str(config_file)]
        command += ["--federation-config", federation]
        # Unbuffered: a round's line appears when the round ends, also through a pipe.
        flwr = self._sandbox.start(command, subprocess.PIPE, PYTHONUNBUFFERED="1")
        assert flwr.stdout is not None
        for line in flwr.stdout:
            yield _ANSI.sub("", line).removeprefix(_INFO).rstrip()
        flwr.wait()

    def outcome(self) -> tuple[str, str] | None:
        """Wait for the end of the run; return its final status and the details.

        None if none was started. The log stream can end before the run does (a dropped
        connection), and ``flwr run`` exits 0 in any case: only this record tells.
        """
        command = ["flwr", "list", _LINK, "--format", "json"]
        while True:
            self._check_alive()
            process = self._sandbox.start(
                command, subprocess.PIPE, stderr=subprocess.PIPE
            )
            text, said = process.communicate(timeout=_START_TIMEOUT)
            try:
                runs = first_object(text)["runs"]
            except (ValueError, LookupError):
                answer = last_line((said + text).splitlines())
                raise LaunchError(f"`flwr list` answered {answer[:200]!r}") from None
            if not runs:
                return None
            [record] = runs  # nobody else can submit one here
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
        lines = _ANSI.sub("", self._log.read_text("utf-8", "replace")).splitlines()
        print("\n".join(lines[-20:]), file=sys.stderr)
        raise LaunchError(
            f"the SuperLink exited with code {self._process.returncode}: "
            f"{last_line(lines)}"
        )


def flower_environment() -> dict[str, str]:
    """Return the caller's environment, made fit for a private Flower."""
    env = dict(os.environ)
    # A Ray cluster that happens to run would be joined, with its own code and paths;
    # the one that is asked for is named by the launcher (``cluster``).
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        env.pop(name, None)
    # Flower finds its own programs through PATH; .venv need not be activated.
    env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), env.get("PATH", "")])
    # Their output is read here: no colours, one encoding, no line broken for a narrow
    # terminal, no warnings that the caller asked of his own programs.
    for name in (*_COLOURS, "PYTHONWARNINGS"):
        env.pop(name, None)
    # Ray's own default, 15, lets clients starve on a machine that has other work.
    env.setdefault("RAY_worker_niceness", "0")
    # Named, so that a system's own proxy (macOS) is not asked for the loopback either.
    env, _ = usable_proxies({"no_proxy": env.get("NO_PROXY", ""), **env})
    return env | {
        "NO_COLOR": "1",
        "TERM": "dumb",
        "COLUMNS": "1000",
        "PYTHONIOENCODING": "utf-8",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def first_object(text: str) -> Any:
    """Return the first JSON object of a program's output, colours or not.

    Raises
    ------
    ValueError
        If there is none.
    """
    plain = _ANSI.sub("", text)
    return json.JSONDecoder().raw_decode(plain, plain.index("{"))[0]


def last_line(lines: Sequence[str]) -> str:
    """Return the last line that is not blank."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
