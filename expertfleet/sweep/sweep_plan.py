"""What a sweep runs: every value of every setting, with every seed."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import nearest
from common.files import atomic_write
from server_app.launcher.config import RunConfigError, parse_run_config

PLAN = "sweep.json"
ITS_OWN = ("seed", "output-dir", "resume-from", "state-dir")
"""Settings that a sweep gives each run itself."""
MOST = 10_000
_COMMA = re.compile(r""",(?=(?:[^"']|"[^"]*"|'[^']*')*$)""")
"""One with whole quotes, if any, behind it."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a sweep.

    Attributes
    ----------
    folder : str
        Where its run is, in the sweep's directory.
    varied : mapping of str to scalar
        What sets it apart from other runs, but for the seed.
    config : mapping of str to scalar
        All settings that are not defaults.
    clients : int
    """

    folder: str
    varied: Mapping[str, Any]
    config: Mapping[str, Any]
    clients: int

    @property
    def label(self) -> str:
        """What it is, in a line."""
        parts = [f"{key}={value}" for key, value in self.varied.items()]
        return " ".join([*parts, f"seed={self.config['seed']}"])


def values_of(text: str, defaults: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return a setting and its values of ``key=a,b``; a comma in quotes parts nothing.

    Raises
    ------
    RunConfigError
        If it is none.
    """
    key, sign, listed = text.partition("=")
    key = key.strip()
    words = [word.strip() for word in _COMMA.split(listed)]
    if not sign or not all(words):
        raise RunConfigError(
            f"set: {text!r} is not allowed: key=value,value as in lr=0.05,0.1"
        )
    if key in ITS_OWN:
        how = "--seeds" if key == "seed" else "--out"
        raise RunConfigError(f"set: {key!r} is not allowed: use {how}")
    if key not in defaults:
        raise RunConfigError(f"unknown setting {key!r}{nearest(key, defaults)}")
    found = [_value(key, word, defaults) for word in words]
    if len({repr(value) for value in found}) < len(found):
        raise RunConfigError(f"set: {text!r} has a value twice")
    return key, found


def _value(key: str, word: str, defaults: Mapping[str, Any]) -> Any:
    # A text needs no quotes where only a text can be meant.
    if isinstance(defaults.get(key), str) and word[0] not in "\"'":
        return word
    [value] = parse_run_config([f"{key}={word}"]).values()
    return value


def seeds_of(text: str) -> list[int]:
    """Return the seeds of ``0-2`` or ``0,3,7``.

    Raises
    ------
    RunConfigError
        If these are none.
    """
    seeds: list[int] = []
    for part in text.split(","):
        if not (found := re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)):
            raise RunConfigError(f"seeds = {text!r} is not allowed: as in 0-2 or 0,3,7")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first >= MOST:
            raise RunConfigError(
                f"seeds = {text!r} is not allowed: {part!r} is no span"
            )
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def planned(
    varied: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    config: Mapping[str, Any],
    clients: int,
) -> list[Planned]:
    """Return the runs, seeds outermost: one that is stopped has whole tables.

    Raises
    ------
    RunConfigError
        If they are too many.
    """
    grid = [
        dict(zip(varied, values, strict=True))
        for values in itertools.product(*varied.values())
    ]
    if len(grid) * len(seeds) > MOST:
        raise RunConfigError(f"{len(grid) * len(seeds)} runs are more than {MOST}")
    return [
        Planned(
            folder=f"{number:03d}-s{seed}",
            varied=values,
            config={**config, **values, "seed": seed},
            clients=clients,
        )
        for seed in seeds
        for number, values in enumerate(grid)
    ]


def keep_plan(folder: Path, plan: Sequence[Planned]) -> None:
    """Write down what a directory is the sweep of, or see that it is the same.

    Raises
    ------
    RunConfigError
        If it is another, in one line.
    OSError
        If it cannot be read or written.
    """
    path = folder / PLAN
    now = [{"folder": p.folder, "clients": p.clients, **p.config} for p in plan]
    if not path.exists():
        with atomic_write(path) as file:
            file.write(json.dumps(now, indent=1).encode() + b"\n")
        return
    try:
        before = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunConfigError(f"{path} is damaged: {error}") from None
    if before != now:
        raise RunConfigError(
            f"{folder} is the directory of another sweep: give the command of that "
            "one, or another --out"
        )
