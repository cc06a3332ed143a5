"""A fingerprint of the code that both sides run.

A SuperLink left over from another checkout hands its own ``common`` and ``client_app``
to the workers before the app bundle is looked at; the run then succeeds with the wrong
code. Clients therefore return this hash and the server refuses a mismatch.

A part from outside that devices run as well, such as an expert, counts with the sources
of its whole package, or of its file if it is in none. What only the server runs, such
as a strategy, does not count: devices need not have it.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from common.data.partition import FOLDERS, parse_partition
from common.registry import (
    BACKBONES,
    CLIENT_METRICS,
    EXPERTS,
    OPTIMIZERS,
    PARTITIONS,
    READERS,
)
from common.settings import Settings

ON_DEVICES = (BACKBONES, CLIENT_METRICS, EXPERTS, OPTIMIZERS, PARTITIONS, READERS)

ROOT = Path(__file__).resolve().parents[1]

OURS = ("common", "client_app")

NOT_RUN = frozenset({"serving", "commands"})
"""Rooms that no round of training enters: what a device serves with may be newer."""

DIGITS = 16
"""Hex digits of a hash."""


def code_hash(settings: Settings | None = None, root: Path = ROOT) -> str:
    """Return 16 hex digits over what ``common`` and ``client_app`` run in a round.

    Followed by 16 more over :func:`outside_sources`, if there are any.

    Raises
    ------
    SettingsError
        If a part that the settings name is not installed here.
    """
    found = _hash_of(*(root / package for package in OURS))
    outside = outside_sources(settings) if settings else {}
    return found + (_hash_of(*sorted({*outside.values()})) if outside else "")


def outside_sources(settings: Settings) -> dict[str, Path]:
    """Return where the parts from outside are that devices run, by module.

    A package is its directory, a module in none its file.

    Raises
    ------
    SettingsError
        If one is not installed here.
    """
    config = settings.to_run_config()
    found = {}
    for registry in ON_DEVICES:
        name = str(config[registry.setting])
        if name in ("", FOLDERS):  # folders of clients are cut by nobody
            continue
        if registry is PARTITIONS:  # it has an argument, and what devices differ in
            name = parse_partition(name).kind
        module = registry.target(name).partition(":")[0]
        if module.partition(".")[0] in (*OURS, "server_app"):
            continue
        if (source := _source_of(module)) is None:
            raise registry.error(name, f"cannot be found: no module {module!r} here")
        found[module] = source
    return found


def _source_of(module: str) -> Path | None:
    """Return the outermost package or module of a dotted name that has a file."""
    names = module.split(".")
    for depth in range(1, len(names) + 1):
        try:
            spec = find_spec(".".join(names[:depth]))
        except (ImportError, ValueError):
            return None
        if spec is not None and spec.origin and spec.has_location:
            path = Path(spec.origin).resolve()
            return path.parent if spec.submodule_search_locations else path
    return None


@cache
def _hash_of(*sources: Path) -> str:
    digest = hashlib.sha256()
    for source in sources:
        for path in [source] if source.is_file() else sorted(source.rglob("*.py")):
            name = path.relative_to(source.parent)
            ours_not_run = name.parts[0] in OURS and name.parts[1] in NOT_RUN
            # Flower drops test files from an app bundle.
            if not ours_not_run and not path.name.startswith("test_"):
                digest.update(name.as_posix().encode())
                digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:DIGITS]
