"""What a run has released, one line a release: ``privacy.jsonl``.

A line is on the disk before the noise of its release is drawn. It is never taken back,
whatever becomes of the round: going back to an older checkpoint releases anew, and does
not undo what was seen.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import durable_append

CHARGES = "privacy.jsonl"


def append_charge(folder: Path, line: Mapping[str, Any]) -> None:
    """Write one line down; raises OSError if it is not on the disk."""
    durable_append(folder / CHARGES, json.dumps(dict(line)).encode() + b"\n")


def read_charges(folder: Path) -> list[dict[str, Any]]:
    """Return all lines; {} for each that is damaged. Raises OSError if there are some.

    The rest of a line that was cut off is a line as well: it is better to have paid.
    """
    try:
        lines = (folder / CHARGES).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [_line(line) for line in lines if line.strip()]


def _line(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
