"""One run of a sweep, in this process: begun, gone on with, or found to be done."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.text import message_of
from server_app.launcher.config import THIS_APP, app_defaults
from server_app.run_folder.run_files import RunFileError, read_facts
from server_app.run_folder.run_state import COMPLETE, run_state


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a process is asked for: settings that are no defaults, and a directory."""

    place: Path
    config: Mapping[str, Any]
    clients: int


def newest_run(place: Path) -> Path | None:
    """Return the run that was begun there last; None if there is none to go on with."""
    for path in sorted(place.glob("*/run.json"), reverse=True):
        try:
            read_facts(path.parent)
        except RunFileError:
            continue
        return path.parent
    return None


def is_done(place: Path) -> bool:
    """Whether a run there is complete."""
    path = newest_run(place)
    return path is not None and run_state(path, read_facts(path)) == COMPLETE


def carry_out(order: Order) -> str:
    """Run to the end; return why that was impossible, "" if it was not."""
    from server_app.commands.simulate import simulate

    begun = newest_run(order.place)
    if begun is None:  # what never had a round is begun anew
        shutil.rmtree(order.place, ignore_errors=True)
    config = {
        **app_defaults(THIS_APP),
        **order.config,
        "output-dir": str(order.place),
        "resume-from": str(begun) if begun else "",
    }
    try:
        simulate(config, order.clients)
    except Exception as error:  # one run must not end the sweep
        return f"{type(error).__name__}: {message_of(error)}"
    return ""
