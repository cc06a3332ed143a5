"""What a device has ready for the next message of a run, where something is resident.

An app tells of itself with each message; ``client_app.device.resident`` imports what it
was told and calls :func:`prepare`, in the process that later messages are forked from.
"""

import json
import os
import socket
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, RecordDict

from client_app.device.resident.hand_over import NOTES
from client_app.session import Session
from common.code_hash import code_hash
from common.errors import DataError, SettingsError
from common.task import task_from_json

_APP = Path(__file__).resolve().parents[1]


def tell(context: Context, session: Session) -> None:
    """Say what the next message of this run will need, if somebody listens."""
    if not (listens := os.environ.get(NOTES)):
        return
    told = {
        "run": context.run_id,
        "folder": str(_APP),
        "app": "client_app.app",
        "prepare": f"{__name__}:{prepare.__name__}",
        "given": {
            "run": context.run_id,
            "node": context.node_id,
            "node_config": dict(context.node_config),
            "run_config": dict(context.run_config),
            "task": session.told.to_json() if session.told else "",
        },
    }
    note = json.dumps({"pid": os.getpid(), "told": told}).encode()
    # Its own descriptor: this one is closed with the object.
    with suppress(OSError), socket.socket(fileno=os.dup(int(listens))) as channel:
        channel.send(note)


def prepare(given: dict[str, Any]) -> None:
    """Read what every message of a run reads, and start no thread.

    No model is made and no random number is drawn: a message finds what it would find
    in a process of its own.
    """
    torch.set_num_threads(1)  # a message sets its own
    context = Context(
        run_id=given["run"],
        node_id=given["node"],
        node_config=given["node_config"],
        run_config=given["run_config"],
        state=RecordDict(),
    )
    with suppress(DataError, SettingsError):  # which a message will say
        session = Session(
            context, task_from_json(given["task"]) if given["task"] else None
        )
        code_hash(session.settings)
        if session.node.uplink_bytes_per_second:  # a message is cut for its link
            import_module("common.flower_internals")
        _ = session.data
