"""``fleet status --watch``: looking at a fleet again and again.

It only reads: the files of a run, and lists that the SuperLink gives anybody who may
ask. So it hurts no run, and sees one whose server has died.
"""

import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from common.exposition import MetricsError
from common.files import atomic_write
from common.text import reason
from server_app.provisioning import ProvisioningError
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.status import FleetStatus, fleet_status
from server_app.provisioning.status_formats import as_json, as_prometheus, as_table
from server_app.provisioning.validity import validity, warn

EVERY = 10.0
"""Seconds from one look to the next."""

_CLEAR = "\x1b[H\x1b[2J"


class StatusFormat(StrEnum):
    """How a status is shown."""

    TABLE = "table"
    JSON = "json"
    PROMETHEUS = "prometheus"


_WRITERS: dict[StatusFormat, Callable[[FleetStatus], str]] = {
    StatusFormat.TABLE: as_table,
    StatusFormat.JSON: as_json,
    StatusFormat.PROMETHEUS: as_prometheus,
}


class Watcher:
    """Looks at a fleet and shows what it sees.

    Parameters
    ----------
    fleet : FleetDirectory
    run : Path or None
        The newest by default, whichever that is at the time.
    form : StatusFormat
    output : Path or None
        The file to write; standard output by default.
    alarm : callable, optional
        Told of each status while it is watched.
    """

    def __init__(
        self,
        fleet: FleetDirectory,
        run: Path | None,
        form: StatusFormat,
        output: Path | None,
        alarm: Callable[[FleetStatus], None] | None = None,
    ) -> None:
        self._fleet, self._run, self._alarm = fleet, run, alarm
        self._form, self._output = form, output
        self._said = ""

    def look(self) -> int:
        """Show a fleet as it is now; return the exit code that says so.

        Raises
        ------
        ProvisioningError
            If it cannot be looked at, or not be shown so.
        """
        return self._show(fleet_status(self._fleet, self._run))

    def watch(self, every: float) -> NoReturn:
        """Look every so many seconds until something raises, as Ctrl-C does.

        What cannot be looked at the first time raises; later it is said once, and
        tried again.

        Raises
        ------
        ProvisioningError
            As :meth:`look`, or if ``every`` is no time.
        """
        if not 1 <= every <= 86400:
            raise ProvisioningError(
                f"--every {every:g} is not allowed: seconds from 1 to 86400"
            )
        self._step()
        while True:
            time.sleep(every)
            try:
                self._step()
            except ProvisioningError as error:
                if str(error) != self._said:
                    print(f"warning: {error}", file=sys.stderr, flush=True)
                self._said = str(error)
            else:
                self._said = ""

    def _step(self) -> None:
        status = fleet_status(self._fleet, self._run)
        if self._form is StatusFormat.TABLE and self._output is None:
            clear = _CLEAR if sys.stdout.isatty() else "\n"
            print(clear, end="")
        # First, so that a full disk or a closed terminal keeps nobody from being told.
        if self._alarm is not None:
            self._alarm(status)
        self._show(status)

    def _show(self, status: FleetStatus) -> int:
        try:
            text = _WRITERS[self._form](status)
        except MetricsError as error:
            raise ProvisioningError(str(error)) from None
        people = self._form is StatusFormat.TABLE and self._fleet.exists()
        if people:
            text += f"\n{validity(self._fleet)}"
        text = text.rstrip("\n") + "\n"
        if self._output is None:
            print(text, end="", flush=True)
        else:
            try:
                # For node_exporter, which is another user.
                with atomic_write(self._output, mode=0o644) as file:
                    file.write(text.encode())
            except OSError as error:
                raise ProvisioningError(
                    f"--output {self._output}: {reason(error)}"
                ) from None
        if people:
            warn(self._fleet)
        return status.code
