"""Bytes of a frozen base on the way to devices, by what they have of it.

``python -m benchmarks.base_bytes --pretrained DIR --run-config '...'`` trains two
rounds in this process, once with devices that have the weights in a directory of their
own and once with devices that have configuration and tokeniser alone, and counts the
messages themselves. Every message is handled as in a process of its own: nothing is
shared by chance. Beside them stands what every device was sent when bases travelled in
float32 within the first order.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from common import wire
from common.hub import load_weights
from common.inline_grid import InlineGrid
from common.moe import bases
from common.moe.vectors import pack
from server_app.app import app as server_app
from server_app.launcher.config import parse_run_config


class Fleet:
    """Devices with a directory and a state directory each.

    Attributes
    ----------
    sent : dict of str to list of int
        Bytes of every message but queries, by round.
    """

    def __init__(self, checkpoint: str, state: Path) -> None:
        self.sent: dict[str, list[int]] = {}
        self._checkpoint, self._state = checkpoint, state
        self.app = ClientApp()
        self.app.query()(self._answer)
        self.app.query("base")(self._counted)
        self.app.train()(self._counted)

    def _answer(self, message: Message, context: Context) -> Message:
        context.node_config["pretrained"] = self._checkpoint
        context.node_config["state-dir"] = str(self._state / str(context.node_id))
        before = dict(bases._installed)
        bases._installed.clear()
        try:
            return client_app(message, context)
        finally:
            bases._installed.clear()
            bases._installed.update(before)

    def _counted(self, message: Message, context: Context) -> Message:
        sizes = self.sent.setdefault(message.metadata.group_id, [])
        sizes.append(wire.message_bytes(message))
        return self._answer(message, context)


def run(checkpoint: str, clients: int, config: dict[str, Any], state: Path) -> Fleet:
    """Train two rounds with devices that have this directory."""
    fleet = Fleet(checkpoint, state)
    context = Context(
        run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config
    )
    server_app(grid=InlineGrid(fleet.app, clients, config), context=context)
    return fleet


def main() -> None:
    """Print megabytes down in both rounds for both kinds of devices."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", required=True, help="directory of a checkpoint")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--run-config", default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, lacking = Path(name), Path(name, "lacking")
        weights = shutil.ignore_patterns("*.safetensors", "*.bin")
        shutil.copytree(args.pretrained, lacking, ignore=weights)
        config = {
            "backbone": "pretrained",
            "pretrained": args.pretrained,
            "num-rounds": 2,
            "output-dir": str(folder / "results"),
            **parse_run_config([args.run_config]),
        }
        base = bases.freeze(load_weights(args.pretrained))
        whole = pack(base.module).nbytes * args.clients
        print(f"base {base.version}: {len(base.to_bytes()) / 1e6:.2f} MB as stored\n")
        print("| devices | round 1, MB down | round 2, MB down | of before | seconds |")
        print("|---|---|---|---|---|")
        for label, place in (("have it", args.pretrained), ("lack it", str(lacking))):
            started = time.perf_counter()
            fleet = run(place, args.clients, config, folder / label)
            first, second = (sum(fleet.sent[number]) for number in "12")
            print(
                f"| {label} | {first / 1e6:.2f} | {second / 1e6:.2f} | "
                f"{100 * first / (second + whole):.2f} % | "
                f"{time.perf_counter() - started:.0f} |"
            )


if __name__ == "__main__":
    main()
