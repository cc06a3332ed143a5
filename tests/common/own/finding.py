"""What readers find, sorted into samples and what was skipped."""

from pathlib import Path
from typing import Any

from common.data.tokens import HashedPieces
from common.own.found import Found, Skipped
from common.own.reading import find_samples
from common.task import Task

TOKENS = HashedPieces(length=6, vocabulary=64)


def found(path: Path, task: Task, **options: Any) -> tuple[list[Found], dict[str, str]]:
    """Return all samples, and the reason for every name that was skipped."""
    every = list(find_samples(path, task, TOKENS, **options))
    skipped = {each.name: each.reason for each in every if isinstance(each, Skipped)}
    return [each for each in every if isinstance(each, Found)], skipped


def labels(
    path: Path, task: Task, **options: Any
) -> list[tuple[str, str | int | None]]:
    """Return name and label of all samples; nothing may be skipped."""
    samples, skipped = found(path, task, **options)
    assert not skipped
    return [(sample.name, sample.label) for sample in samples]


def write(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    """Write lines into a file, its folder too; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    return path
