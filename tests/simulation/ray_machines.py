"""A Ray cluster of machines side by side on this one, started as a user starts it.

The head is this machine, by the address that Ray finds for it. The others have one of
their own on the loopback and, where the system lets us, nothing of our disk but the
environment: neither the checkout nor anything below ``/tmp``.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from tests.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
STARTED, LATE = "Ray runtime started", "timed out during startup"
# By default Ray's workers give way to all others, for minutes where tests run.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

_ALONE = """
set -e
mount -t tmpfs none /mnt && mkdir /mnt/venv && mount --bind "$VENV" /mnt/venv
for place in $HIDDEN; do mount -t tmpfs none "$place"; done
mkdir -p "$VENV" && mount --bind /mnt/venv "$VENV"
cd / && exec "$@"
"""


@cache
def can_be_alone() -> bool:
    """Whether a machine can have a disk of its own: Linux, as root, with mounts."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


class Machines:
    """The machines of a cluster, one core each; all are stopped on leaving."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._all: list[subprocess.Popen[bytes]] = []
        port = free_port()
        self.head = self._start(
            [],
            ["--head", "--port", str(port), "--temp-dir", str(self.root / "h")],
            ["--ray-client-server-port", str(free_port()), "--dashboard-port"],
            [str(free_port()), "--include-dashboard", "false"],
        )
        log = self.root / f"{len(self._all) - 1}.log"
        found = re.search(r"Local node IP: (\S+)", log.read_text())
        assert found is not None
        self.address = f"{found[1]}:{port}"

    def add(self) -> "subprocess.Popen[bytes]":
        """Start one more machine."""
        number = len(self._all)
        place = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        place.rmdir()  # hidden from it as well
        alone = ["unshare", "-m", "bash", "-c", _ALONE, "-"] if can_be_alone() else []
        return self._start(
            alone,
            ["--address", self.address, "--temp-dir", str(place)],
            ["--node-ip-address", f"127.0.0.{number + 1}"],
        )

    def _start(
        self, before: list[str], *options: list[str], tries: int = 4
    ) -> "subprocess.Popen[bytes]":
        log = self.root / f"{len(self._all)}.log"
        command = [*before, str(Path(sys.prefix) / "bin" / "ray"), "start", "--block"]
        command += ["--num-cpus", "1", "--object-store-memory", str(80 << 20)]
        command += ["--disable-usage-stats"]
        hidden = f"/tmp {REPOSITORY}"
        env = {**os.environ, **ENVIRONMENT, "VENV": sys.prefix, "HIDDEN": hidden}
        with log.open("w") as file:
            process = subprocess.Popen(
                [*command, *(each for some in options for each in some)],
                cwd="/",
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._all.append(process)
        while STARTED not in (said := log.read_text()):
            if process.poll() is not None:
                # Ray gives itself 30 s to start, which a busy machine does not have.
                assert LATE in said and tries > 1, said
                return self._start(before, *options, tries=tries - 1)
            time.sleep(0.1)
        return process

    def titles(self, machine: "subprocess.Popen[bytes]", pattern: str) -> list[str]:
        """Return the titles of a machine's processes that a pattern is found in."""
        found = []
        with suppress(psutil.Error):
            for process in psutil.Process(machine.pid).children(recursive=True):
                with suppress(psutil.Error):
                    found.append(" ".join(process.cmdline()))
        return [title for title in found if re.search(pattern, title)]

    def kill(self, machine: "subprocess.Popen[bytes]") -> None:
        """Let a machine lose its power."""
        with suppress(psutil.Error):
            whole = psutil.Process(machine.pid)
            for process in [*whole.children(recursive=True), whole]:
                with suppress(psutil.Error):
                    process.kill()
        machine.wait(timeout=60)

    def stop(self) -> None:
        """Stop all, the head last, and remove their files."""
        for machine in reversed(self._all):
            self.kill(machine)
        shutil.rmtree(self.root, ignore_errors=True)
