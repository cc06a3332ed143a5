"""The rounds on record of a run that is gone on with, as far as they can be had.

``metrics.jsonl`` may have lost lines, or have lines of rounds that are made again. Each
checkpoint has the line of its round beside it. Nothing is written here.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server_app.run_folder.checkpoint import Checkpoints
from server_app.run_folder.run_files import METRICS, read_metrics

logger = logging.getLogger("flwr.expertfleet")


def mended(
    folder: Path, checkpoints: Checkpoints, completed: int
) -> list[dict[str, Any]]:
    """Return the lines of all rounds up to one; say which were lost, or are dropped."""
    rounds, damaged = read_metrics(folder)
    if damaged:
        logger.warning("%s: lines %s are damaged", METRICS, _some(damaged))
    later = [r["round"] for r in rounds if r["round"] > completed]
    if len(later) > 1:
        logger.warning("no checkpoint of rounds %s: made again", _some(later))
    found = {r["round"]: r for r in rounds if r["round"] <= completed}
    lost = [number for number in range(1, completed + 1) if number not in found]
    if lost:
        found |= _found_again(lost, checkpoints)
    return [found[number] for number in sorted(found)]


def _found_again(
    lost: Sequence[int], checkpoints: Checkpoints
) -> dict[int, dict[str, Any]]:
    """Return the lines of rounds that checkpoints still have, and say it."""
    found = {}
    for state in checkpoints.intact():
        if "record" in state and state["completed"] in lost:
            found[state["completed"]] = json.loads(state["record"])
    if found:
        logger.warning(
            "%s had lost rounds %s: taken from the checkpoints after them",
            METRICS,
            _some(sorted(found)),
        )
    if gone := [number for number in lost if number not in found]:
        logger.warning(
            "%s has lost rounds %s; what was trained in them is not lost",
            METRICS,
            _some(gone),
        )
    return found


def _some(numbers: Sequence[int]) -> str:
    """Return numbers as text, not more than a line of them."""
    shown = ", ".join(map(str, numbers[:10]))
    return shown if len(numbers) <= 10 else f"{shown} and {len(numbers) - 10} more"
