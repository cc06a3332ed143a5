"""What somebody has to be told of a fleet, and the command that tells them.

An alert is told once as long as what it is about lasts, and again when that has ended
and comes back. The command runs beside the watch, never in a run: it may fail or hang
and hurts nothing.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from common.text import first_line
from server_app.provisioning.status import FleetStatus
from server_app.run_folder.run_state import DIED, FAILED

AFTER = 120.0
"""Seconds a device is waited for: one that starts again is not missing yet."""

TIMEOUT = 30.0
"""Seconds the command gets."""

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that is wrong now.

    Attributes
    ----------
    kind : str
        ``device-missing``, ``superlink-silent``, ``run-failed``, ``replies-refused`` or
        ``certificate-ends``.
    about : str
        A device, an address, a run, a certificate.
    text : str
        One line.
    lasted : float or None
        Seconds it has been so, where it is told only once that is long; None where it
        is told at once.
    facts : mapping
        What is known besides.
    """

    kind: str
    about: str
    text: str
    lasted: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others."""
        return self.kind, self.about


def alerts(status: FleetStatus) -> Iterator[Alert]:
    """Yield all that is wrong."""
    nodes, run = status.nodes, status.run
    if nodes is not None and not nodes.answered:
        text = nodes.problem
        yield Alert(kind="superlink-silent", about=nodes.address, text=text, lasted=0.0)
    for device in status.devices:
        if device.missing:
            ago = (
                "" if device.age is None else f", last heard of {device.age:.0f} s ago"
            )
            yield Alert(
                kind="device-missing",
                about=device.name,
                text=f"{device.name} is missing: {device.state}{ago}",
                lasted=device.age or 0.0,
                facts={"state": device.state, "last_round": device.record.last_round},
            )
    if run is not None:
        yield from _of_the_run(status)
    for each in status.certificates:
        if each.problem:
            facts = {"days": each.days, "device": each.device or None}
            yield Alert(
                kind="certificate-ends",
                about=each.what,
                text=each.problem,
                facts=facts,
            )


def _of_the_run(status: FleetStatus) -> Iterator[Alert]:
    run, word = status.run, status.flower_state
    assert run is not None
    # Flower kills a run that somebody has stopped: that is no failure.
    by_hand = word == "finished:stopped"
    if word == "finished:failed" or (run.state in (FAILED, DIED) and not by_hand):
        why = f": {run.why}" if run.why else ""
        yield Alert(
            kind="run-failed",
            about=run.name,
            text=f"{run.name} {run.state} after round {run.round} of {run.rounds}{why}",
            facts={"state": run.state, "why": run.why, "flower_state": word},
        )
    if run.refused > run.accepted:
        yield Alert(
            kind="replies-refused",
            about=run.name,
            text=f"{run.name}: {run.refused} of {run.refused + run.accepted} replies "
            f"of round {run.round} were refused",
            facts={"rejected": dict(run.last.get("rejected", {}))},
        )


class Alarm:
    """Runs a command for each alert, once as long as it lasts.

    Parameters
    ----------
    command : str
        For ``/bin/sh``. It gets the facts in its environment (``EXPERTFLEET_ALERT`` the
        kind, ``_ABOUT``, ``_TEXT``, ``_RUN``, ``_RUN_PATH``) and one line of JSON on
        its standard input.
    after : float
        Seconds something has to last that may end by itself.
    timeout : float
        Seconds after which the command is killed.
    clock : callable
        Seconds that never go back.
    """

    def __init__(
        self,
        command: str,
        after: float = AFTER,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command, self._after, self._timeout = command, after, timeout
        self._clock = clock
        self._seen: dict[tuple[str, str], float] = {}
        self._told: set[tuple[str, str]] = set()

    def __call__(self, status: FleetStatus) -> None:
        """Tell what is new."""
        now, found = self._clock(), {each.key: each for each in alerts(status)}
        silent = status.nodes is not None and not status.nodes.answered
        for key in [*self._seen]:
            # Nobody can say of a device whether it is back.
            if key not in found and not (silent and key[0] == "device-missing"):
                del self._seen[key]
                self._told.discard(key)
        new = []
        for key, alert in found.items():
            since = now - self._seen.setdefault(key, now)
            due = alert.lasted is None or max(alert.lasted, since) >= self._after
            if due and key not in self._told:
                self._told.add(key)
                new.append(alert)
        self._run(new, status)

    def _run(self, new: list[Alert], status: FleetStatus) -> None:
        """Run the command for all of them at a time; say what went wrong."""
        running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        try:
            for alert in new:
                print(f"alert: {alert.text}", file=sys.stderr, flush=True)
                # Files: a command that reads or writes nothing holds nobody up.
                with tempfile.TemporaryFile() as line:
                    line.write(f"{_line(alert, status)}\n".encode())
                    line.seek(0)
                    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
                    try:
                        process = subprocess.Popen(
                            ["/bin/sh", "-c", self._command],
                            stdin=line,
                            stdout=said,
                            stderr=said,
                            env={**os.environ, **_environment(alert, status)},
                            start_new_session=True,
                        )
                    except OSError as error:
                        said.close()
                        _warn(f"cannot be run: {error}")
                        continue
                    running.append((process, said))
            deadline = time.monotonic() + self._timeout
            for process, output in running:
                self._wait(process, output, deadline)
        finally:
            for process, output in running:
                if process.poll() is None:
                    _kill(process)
                output.close()

    def _wait(
        self, process: subprocess.Popen[bytes], said: IO[bytes], deadline: float
    ) -> None:
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(process)
            _warn(f"was killed: it did not end within {self._timeout:g} s")
            return
        if code:
            said.seek(0)
            text = first_line(said.read(10_000).decode("utf-8", "replace"))
            _warn(f"ended with code {code}: {text}")


def _line(alert: Alert, status: FleetStatus) -> str:
    run = status.run
    return json.dumps(
        {
            "version": _VERSION,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.time)),
            "alert": alert.kind,
            "about": alert.about,
            "text": alert.text,
            "run": run.name if run else None,
            "run_path": str(run.path.absolute()) if run else None,
            "facts": dict(alert.facts),
        }
    )


def _environment(alert: Alert, status: FleetStatus) -> dict[str, str]:
    run = status.run
    return {
        "EXPERTFLEET_ALERT": alert.kind,
        "EXPERTFLEET_ABOUT": alert.about,
        "EXPERTFLEET_TEXT": alert.text,
        "EXPERTFLEET_RUN": run.name if run else "",
        "EXPERTFLEET_RUN_PATH": str(run.path.absolute()) if run else "",
    }


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _warn(what: str) -> None:
    print(f"warning: --on-alert {what}", file=sys.stderr, flush=True)
