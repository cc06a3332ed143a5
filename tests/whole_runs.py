"""Whole runs in this process: the real ServerApp, and devices that may do otherwise.

The settings are those of whoever asks.
"""

import json
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from client_app.app import app as client_app
from common import wire
from server_app.app import app as server_app

Handler = Callable[[Message, Context], Message]
Lie = Callable[[RecordDict, int], None]
"""Changes what a reply to a training order says, in some round."""


def serve(config: dict[str, Any], grid: Grid) -> None:
    """Run the ServerApp to the end."""
    context = Context(
        run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config
    )
    server_app(grid=grid, context=context)


def only_run(folder: Path) -> Path:
    """Return the directory of the one run below an ``output-dir``."""
    [facts] = folder.glob("*/run.json")
    return facts.parent


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rounds on record in the directory of a run."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def honest(message: Message, context: Context) -> Message:
    """Answer as a device does."""
    return client_app(message, context)


def app_with(
    *, query: Handler = honest, train: Handler = honest, evaluate: Handler = honest
) -> ClientApp:
    """Return the ClientApp of devices that answer some messages in their own way."""
    app = ClientApp()
    app.query()(query)
    app.train()(train)
    app.evaluate()(evaluate)
    return app


def lying(lie: Lie, liars: Container[int] = (0,)) -> ClientApp:
    """Return the real ClientApp, whose training replies some clients change."""

    def train(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if context.node_config["partition-id"] in liars:
            lie(reply.content, int(message.metadata.group_id))
        return reply

    return app_with(train=train)


def fill(content: RecordDict, value: float) -> None:
    """Put one value everywhere into what a reply would change."""
    arrays = content.array_records[wire.ARRAYS]
    for name, array in arrays.items():
        arrays[name] = Array(np.full(array.shape, value, np.float32))
