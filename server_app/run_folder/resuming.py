"""Whether a run can be gone on with: which settings may be others than before."""

from pathlib import Path
from typing import Any

from common.errors import SettingsError
from common.settings import Settings
from server_app.run_folder.run_files import read_facts

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
