"""What a message without training costs a device, cold and warm, side by side.

    python -m benchmarks.resident [--repeat N] [--config KEY=VALUE]

The message is a query, which a device answers with what it has; a SuperNode that
answers at once hands it out (``benchmarks.local_supernode``), so nothing waits but for
the message's own processes. *Cold* imports everything (``--keep-warm 0``), *first* also
starts what stays resident, *warm* is forked from it. They take turns.

Processor seconds are of all processes of the device; those spent after the reply, to
have the next message ready, are a column of their own. Memory is what all of them have
between two messages, shared pages counted once (PSS).
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
from flwr.app import RecordDict

from benchmarks.local_supernode import LocalSuperNode
from client_app.device.resident.starting import resident_variables
from server_app.launcher.superlink import flower_environment

SETTLED = 2.0
"""Seconds without work after which a device is at rest."""


class Device:
    """Its processes, told by their ``FLWR_HOME``."""

    def __init__(self, node: LocalSuperNode, home: Path, keep_warm: float) -> None:
        self._node, self._home = node, home
        home.mkdir()
        self._stack = ExitStack()
        variables = self._stack.enter_context(resident_variables(keep_warm))
        self._env = {**flower_environment(), **variables, "FLWR_HOME": str(home)}
        self._ended = 0.0

    def processes(self) -> list[psutil.Process]:
        """Return what is running of it."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("FLWR_HOME") == str(self._home):
                    found.append(process)
        return found

    def _spent(self) -> float:
        """Return processor seconds so far, of all and of what they waited for."""
        total = self._ended
        for process in self.processes():
            with suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])
        return total

    def message(self, config: dict[str, str]) -> tuple[float, float, float]:
        """Return the seconds of a message, its processor's, and those after it."""
        self._node.node_config["state-dir"] = str(self._home / "state")
        self._node.put(RecordDict(), "query", config)
        where = ["--runtime-api-address", self._node.address, "--insecure"]
        command = ["flwr-clientapp", *where, "--token", "0" * 64]
        command += ["--parent-pid", str(os.getpid())]
        before, started = self._spent(), time.perf_counter()
        process = subprocess.Popen(
            command,
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        self._ended += used.ru_utime + used.ru_stime
        reply = self._node.reply
        if process.returncode or reply is None or reply.has_error():
            raise SystemExit(f"a message failed: {self._node.failure or status}")
        spent = self._spent()
        rest = self._rest()
        return seconds, spent - before, rest - spent

    def _rest(self) -> float:
        """Wait until nothing is done any more; return the processor seconds so far."""
        spent = self._spent()
        while True:
            time.sleep(SETTLED)
            if (now := self._spent()) - spent < SETTLED / 100:
                return now
            spent = now

    def memory(self) -> float:
        """Return the MiB of what is running."""
        return sum(each.memory_full_info().pss for each in self.processes()) / 2**20

    def close(self) -> None:
        """End what is running."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        self._stack.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, metavar="N")
    parser.add_argument(
        "--config", action="append", default=[], metavar="KEY=VALUE", help="of the run"
    )
    args = parser.parse_args()
    config = {"dataset": "digits"}
    config |= dict(each.split("=", 1) for each in args.config)
    rows: dict[str, list[tuple[float, float, float]]] = {}
    folder = Path(tempfile.mkdtemp())
    memory = []
    try:
        with LocalSuperNode() as node:
            node.node_config["name"] = "bench"
            for number in range(args.repeat):
                cold = Device(node, folder / f"cold-{number}", 0)
                warm = Device(node, folder / f"warm-{number}", 900)
                cold.message(config)  # unpacks the app, measures the device's speed
                rows.setdefault("first", []).append(warm.message(config))
                for _ in range(2):
                    rows.setdefault("cold", []).append(cold.message(config))
                    rows.setdefault("warm", []).append(warm.message(config))
                memory.append(warm.memory())
                cold.close()
                warm.close()
                _print(rows, memory)
    finally:
        shutil.rmtree(folder)


def _print(
    rows: dict[str, list[tuple[float, float, float]]], memory: list[float]
) -> None:
    print(f"\n{'':<6} {'n':>3} {'seconds':>18} {'processor s':>18} {'afterwards':>18}")
    for name in ("cold", "first", "warm"):
        columns = (_spread(each) for each in zip(*rows[name], strict=True))
        print(f"{name:<6} {len(rows[name]):>3} {' '.join(columns)}")
    cold, warm = (
        [statistics.median(each) for each in zip(*rows[name], strict=True)]
        for name in ("cold", "warm")
    )
    print(f"warm / cold: {warm[0] / cold[0]:.3f}, processor {warm[1] / cold[1]:.3f}")
    print(f"resident between messages: {_spread(memory).strip()} MiB", flush=True)


def _spread(numbers: "tuple[float, ...] | list[float]") -> str:
    middle = statistics.median(numbers)
    return f"{f'{middle:.2f} ({min(numbers):.2f}-{max(numbers):.2f})':>18}"


if __name__ == "__main__":
    main()
