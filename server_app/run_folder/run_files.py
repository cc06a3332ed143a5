"""The two text files of a run, ``run.json`` and ``metrics.jsonl``, and their format.

Both are read while the run goes on, after a power cut, and from disks that have damaged
them: a bad line costs itself and no other. Only the standard library is needed here.
When they are written is up to ``server_app.run_folder.folder``.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import atomic_write
from common.text import RUN_NAME, one_line

FACTS, METRICS = "run.json", "metrics.jsonl"

PROGRESS = "progress.json"
"""How far the round under way is: ``round``, ``answers`` of ``asked``. Only while the
server of the run is there, and nobody has to be able to read it."""

CONFUSION = "confusion.npz"
"""``confusion`` (K, K) after ``round``; rows are true classes, columns answers."""

LARGEST = 1e100

_FIELDS: Mapping[str, type] = {
    "round": int,
    "load": list,
    "samples": list,
    "notes": list,
    "rejected": dict,
    "clients": list,
}
"""What every line must have to be of use to anybody."""


class RunFileError(ValueError):
    """A file of a run cannot be used; the message is one line that says which."""


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what ``run.json`` says.

    Raises
    ------
    RunFileError
        If it cannot be read, or lacks the run's name or its settings.
    """
    path = folder / FACTS
    try:
        facts = json.loads(path.read_bytes())
    except OSError as error:
        raise RunFileError(
            f"{folder} is not the directory of a run: {FACTS}: {error.strerror}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RunFileError(f"{path} is damaged: {error}") from None
    if not isinstance(facts, dict):
        raise RunFileError(f"{path} is damaged: it is no object")
    for key, kind in (("run", str), ("settings", dict)):
        if not isinstance(facts.get(key), kind):
            raise RunFileError(f"{path} is damaged: {key!r} is missing")
    if not isinstance(facts.get("data", {}), dict):
        raise RunFileError(f"{path} is damaged: 'data' is no object")
    name = facts["run"]
    if name in (".", "..") or not re.fullmatch(RUN_NAME, name):
        raise RunFileError(f"{path} is damaged: {name!r} is no name of a run")
    return facts


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``run.json``; on an OSError what was there before is intact."""
    with atomic_write(folder / FACTS) as file:
        file.write(to_json(facts, indent=2).encode() + b"\n")


def class_names(facts: Mapping[str, Any], count: int) -> list[str]:
    """Return what the classes of a run are called: their numbers if nothing says it."""
    task = facts.get("task")
    names = task.get("classes") if isinstance(task, dict) else None
    if not isinstance(names, list) or len(names) != count:
        return [str(number) for number in range(count)]
    return [one_line(str(name), 40) for name in names]


def read_metrics(folder: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the rounds of ``metrics.jsonl`` and the numbers of damaged lines, from 1.

    Rounds ascend; of one that is there twice the later line counts. NaN and Infinity,
    which are no JSON, are None.

    Raises
    ------
    RunFileError
        If the file is there and cannot be read.
    """
    path = folder / METRICS
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise RunFileError(f"{path} cannot be read: {error.strerror}") from None
    rounds, damaged = {}, []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            record = None
        if _is_round(record):
            rounds[record["round"]] = record
        else:
            damaged.append(number)
    return [rounds[number] for number in sorted(rounds)], damaged


def _is_round(record: Any) -> bool:
    """Whether a line is whole enough to be of use."""
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(key), kind) for key, kind in _FIELDS.items())
        and record["round"] >= 1
        and all(
            isinstance(client, dict)
            and isinstance(client.get("client"), str)
            and isinstance(client.get("experts"), list)
            and all(isinstance(expert, int) for expert in client["experts"])
            for client in record["clients"]
        )
    )


def to_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON: what is not finite becomes null, what is no JSON its text."""
    return json.dumps(_strict(value), allow_nan=False, indent=indent)


def _strict(value: Any) -> Any:
    match value:
        case float():
            return float(value) if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case Mapping():
            return {str(key): _strict(item) for key, item in value.items()}
        case list() | tuple():
            return [_strict(item) for item in value]
    if hasattr(value, "tolist"):  # of NumPy
        return _strict(value.tolist())
    return str(value)


def finite(value: Any) -> float:
    """Return a number of a line as it can be drawn: NaN where there is none.

    It is at most ``LARGEST`` from 0, so that sums and ratios of numbers are finite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    if not math.isfinite(number):
        return math.nan
    return max(-LARGEST, min(LARGEST, number))
