"""What a fleet of 1 000, 10 000 and 50 000 devices costs the server.

``python -m benchmarks.many_devices`` runs the real server (fleet, selection, planning,
orders, intake, merge, record, run folder with checkpoint, callbacks and report) against
devices that answer at once, well-formed and without training. A tenth of them is asked
in a round. Each size is measured in a process of its own. Printed are

- ``join``: CPU of the first query and the first round, a client;
- ``CPU``: CPU of a round, a client that was asked: median of the rounds after the
  first, and the smallest and largest;
- ``kept``, ``peak``: resident memory beyond that before the fleet came, a client;
- ``folder``: by how much the run's directory grows in a round, checkpoints and report
  left out;
- ``checkpoint``: how large the newest is;
- ``written``: bytes written in a round, of whatever kind;
- ``solver``: seconds of the assignment.

CPU and memory of the fake devices are not in it, nor are SuperLink, HTTP and the
measuring of the model, whose cost does not depend on the devices.
"""

import argparse
import gc
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.server_rounds import fake_clients
from common.data import fingerprint
from common.flower_internals import HEARTBEAT_INTERVAL_INF, NodeInfo
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import dataset_of, model_spec, server_task
from server_app.callbacks.runlog import RunLog
from server_app.report.pages import FILE as REPORT
from server_app.rounds.loop import RoundLoop
from server_app.strategies.flex_moe import FlexMoE

SIZES = "1000,10000,50000"
SHARE = 10
"""One in so many is asked."""


class Crowd(InlineGrid):
    """Many nodes without anything of their own, and what they cost.

    Attributes
    ----------
    seconds : float
        CPU spent in their place.
    """

    def __init__(self, app: ClientApp, count: int) -> None:
        super().__init__(app, 0, {})
        self.seconds = 0.0
        self._count = count
        self._nodes = [
            NodeInfo(node_id=node, heartbeat_interval=HEARTBEAT_INTERVAL_INF)
            for node in range(1, count + 1)
        ]

    def get_nodes(self) -> list[NodeInfo]:
        """Return all nodes."""
        return self._nodes

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Answer all of the given messages."""
        began = time.process_time()
        found = [self._pending.pop(i, None) for i in message_ids]
        replies = [self._answer(message) for message in found if message is not None]
        self.seconds += time.process_time() - began
        return replies

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        config: dict[str, Any] = {
            "partition-id": node - 1,
            "num-partitions": self._count,
        }
        context = Context(1, node, config, RecordDict(), {})
        return self._wired(self._app(message=self._wired(message), context=context))


def memory() -> dict[str, int]:
    """Return resident bytes now and at most (``now``, ``most``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {
        name: 1024 * int(found[key].split()[0])
        for name, key in (("now", "VmRSS"), ("most", "VmHWM"))
    }


def written() -> int:
    """Return the bytes this process has written to any file."""
    text = Path("/proc/self/io").read_text()
    return int(text.split("wchar:")[1].split()[0])


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file of a run by its path."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


def measure(clients: int, rounds: int, experts: int, **config: Any) -> dict[str, Any]:
    """Run the server with so many clients; return what it cost."""
    with tempfile.TemporaryDirectory() as place:
        settings = Settings.from_run_config(
            {
                "num-rounds": rounds,
                "num-experts": experts,
                "clients-per-round": clients // SHARE,
                "output-dir": place,
                **config,
            }
        )
        spec = model_spec(settings, server_task(settings))
        strategy = FlexMoE(settings, spec)
        loop, log = RoundLoop(strategy), RunLog(settings)
        loop.attach(log.run, log)
        data = fingerprint(dataset_of(settings))
        grid = Crowd(fake_clients(spec, data), clients)
        gc.collect()
        before = memory()
        costs: list[dict[str, Any]] = []
        close = loop.close

        def spent() -> tuple[float, int]:
            return time.process_time() - grid.seconds, written()

        def closed(*args: Any) -> Any:
            record = close(*args)
            (cpu, out), (cpu_before, out_before) = spent(), began[0]
            files = sizes(log.run.path)
            costs.append(
                {
                    "cpu": cpu - cpu_before,
                    "written": out - out_before,
                    "checkpoint": max(v for k, v in files.items() if ".ckpt" in k),
                    "folder": sum(
                        size
                        for name, size in files.items()
                        if ".ckpt" not in name and name != REPORT
                    ),
                    "solver": (record.solver or {})["seconds"],
                    "replies": sum(each.replied for each in record.clients),
                    "memory": memory()["now"],
                    "files": files,
                }
            )
            began[0] = spent()
            return record

        began = [spent()]
        loop.close = closed  # type: ignore[method-assign,assignment]
        loop.run(grid, rounds, 600.0, None)
        gc.collect()
        after = memory()
        log.close()
    if any(each["replies"] != clients // SHARE for each in costs):
        raise RuntimeError("a reply was not accepted")
    return {"clients": clients, "before": before, "after": after, "rounds": costs}


def line(found: dict[str, Any]) -> str:
    """Return a line of the table."""
    clients, rounds = found["clients"], found["rounds"]
    asked = clients // SHARE
    cpu = [1e3 * each["cpu"] / asked for each in rounds[1:]]
    kept = (found["after"]["now"] - found["before"]["now"]) / clients
    peak = (found["after"]["most"] - found["before"]["now"]) / clients
    growth = (rounds[-1]["folder"] - rounds[1]["folder"]) / (len(rounds) - 2)
    cells = [
        f"{clients}",
        f"{1e3 * rounds[0]['cpu'] / clients:.2f} ms",
        f"{median(cpu):.2f} ms ({min(cpu):.2f} to {max(cpu):.2f})",
        f"{kept / 1e3:.1f} kB",
        f"{peak / 1e3:.1f} kB",
        f"{growth / 1e6:.2f} MB",
        f"{rounds[-1]['checkpoint'] / 1e6:.1f} MB",
        f"{median(each['written'] for each in rounds[1:]) / 1e6:.1f} MB",
        f"{median(each['solver'] for each in rounds[1:]):.2f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default=SIZES)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--details", action="store_true", help="every round, as JSON")
    args = parser.parse_args()
    if args.one:
        logging.getLogger("flwr").setLevel(logging.ERROR)
        print(json.dumps(measure(args.one, args.rounds, args.experts)))
        return
    names = "join | CPU | kept | peak | folder | checkpoint | written | solver"
    print(f"{args.experts} experts, {args.rounds} rounds, one in {SHARE} asked")
    print(f"| clients | {names} |")
    print("|---" * (names.count("|") + 2) + "|")
    for clients in map(int, args.clients.split(",")):
        command = [sys.executable, "-m", "benchmarks.many_devices"]
        command += ["--one", f"{clients}", "--rounds", f"{args.rounds}"]
        command += ["--experts", f"{args.experts}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(line(found), flush=True)
        if args.details:
            print(json.dumps(found["rounds"], indent=1), flush=True)


if __name__ == "__main__":
    main()
