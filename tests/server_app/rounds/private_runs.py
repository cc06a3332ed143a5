"""Small runs with central privacy, whose clients may be made to answer otherwise."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from tests.whole_runs import app_with, only_run, rounds_of, serve

SMALL: dict[str, Any] = {
    "num-rounds": 2,
    "num-experts": 4,
    "local-epochs": 1,
    "privacy": "central",
    "test-samples": 50,
    "train-samples": 300,
}
Rounds = list[dict[str, Any]]


def run(
    folder: Path, app: ClientApp = client_app, clients: int = 4, **changes: Any
) -> tuple[Rounds, dict[str, Any]]:
    """Run to the end; return the rounds and ``run.json``."""
    config = {**SMALL, "output-dir": str(folder)}
    config |= {key.replace("_", "-"): value for key, value in changes.items()}
    serve(config, InlineGrid(app, clients, config))
    path = only_run(folder)
    return rounds_of(path), json.loads((path / "run.json").read_text())


Change = Callable[[Message, Message, int], Message]


def answering(change: Change) -> ClientApp:
    """Return the real ClientApp, whose training replies pass through a function."""

    def train(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        return change(message, reply, int(context.node_config["partition-id"]))

    return app_with(train=train)


def placements(rounds: Rounds) -> list[dict[str, list[int]]]:
    return [{c["client"]: c["experts"] for c in each["clients"]} for each in rounds]
