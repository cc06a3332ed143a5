"""How a run stands: it goes on, is complete, was stopped, has failed, or died.

The server writes ``state`` and ``why`` into ``run.json`` when a run begins and ends.
One that is killed or loses its power writes no more: then nobody holds the run's lock.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.text import message_of
from server_app.run_folder.run_lock import is_held

RUNNING, COMPLETE, STOPPED, FAILED = "running", "complete", "stopped", "failed"
DIED = "died"
"""Its server ended without a word."""
RUN_STATES = (RUNNING, COMPLETE, STOPPED, FAILED, DIED)


def ended(error: BaseException | None) -> dict[str, str]:
    """Return what ``run.json`` says of a run that ends so; None is no error."""
    match error:
        case None:
            return {"state": COMPLETE, "why": ""}
        case Exception():
            return {"state": FAILED, "why": message_of(error)}
    return {"state": STOPPED, "why": "interrupted"}  # Ctrl-C, SIGTERM


def run_state(folder: Path, facts: Mapping[str, Any]) -> str:
    """Return how a run stands.

    Parameters
    ----------
    folder : Path
        Its directory.
    facts : mapping
        Its ``run.json``. One of before runs said how they end has no state: it is
        running or died.
    """
    # Who has said how it ends holds the lock for a moment more.
    if (said := str(facts.get("state", RUNNING))) != RUNNING:
        return said
    return RUNNING if is_held(folder) else DIED
