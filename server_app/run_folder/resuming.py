"""Whether a run can be gone on with: which settings may be others than before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import SettingsError
from common.settings import Settings
from server_app.run_folder.run_files import read_facts

SIMULATED = "simulated_clients"
"""In ``run.json`` of a simulation: how many clients it has."""

# Settings that may differ between a run and its continuation: they change where and
# how long it runs, not what it computes. A strategy with a schedule over num-rounds
# remembers the one it began with. What the owners of devices allow them may change at
# any time. A task is compared by what is in its file.
FREE_TO_CHANGE = frozenset(
    {
        "callbacks",
        "client-metrics",
        "data-dir",
        "pretrained",
        "fleet-list",
        "keep-checkpoints",
        "num-rounds",
        "on-collapse",
        "output-dir",
        "resume-from",
        "round-deadline",
        "solver-time-limit",
        "state-dir",
        "stop-measure",
        "stop-mode",
        "stop-patience",
        "task",
        "test-data",
        "unknown-clients",
    }
)


def settings_kept(settings: Settings) -> dict[str, Any]:
    """Return the settings as ``run.json`` has them.

    A run that is moved is another place to go on from: it does not say its own.
    """
    kept = {**settings.to_run_config(), "resume-from": ""}
    if settings.run.state_dir == settings.run.state_of_run:
        kept["state-dir"] = ""
    return kept


def clients_before(facts: Mapping[str, Any]) -> int:
    """Return how many clients a run was begun with; 0 if nothing says it."""
    if isinstance(number := facts.get(SIMULATED), int):
        return number
    # A run of before that was told.
    known = facts.get("clients")
    cut = {
        client.get("num_partitions")
        for client in (known.values() if isinstance(known, dict) else ())
        if isinstance(client, dict)
    }
    number = cut.pop() if len(cut) == 1 else 0
    return number if isinstance(number, int) else 0


def facts_of(folder: Path, settings: Settings) -> dict[str, Any]:
    """Return ``run.json`` of a run that can go on with these settings.

    Raises
    ------
    RunFileError
        If it cannot be read.
    SettingsError
        In one line, if the run had other settings or is of another version.
    """
    facts = read_facts(folder)
    stored, now = facts["settings"], settings.to_run_config()
    if others := (stored.keys() ^ now.keys()) - FREE_TO_CHANGE:
        # What a setting was before there was one, only that version knows.
        raise SettingsError(
            f"resume-from = {str(folder)!r} is the run of another version of "
            f"expertfleet, by its settings {', '.join(sorted(others)[:5])}: go on with "
            "the version that began it"
        )
    changed = [
        f"{key} was {stored[key]!r}, now {value!r}"
        for key, value in now.items()
        if key not in FREE_TO_CHANGE and stored[key] != value
    ]
    if changed:
        raise SettingsError(
            f"resume-from = {str(folder)!r} had other settings: {'; '.join(changed)}"
        )
    return facts
