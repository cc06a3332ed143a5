"""Where a run will be written: checked, named and made before a server writes there.

Not here: what the server writes (``server_app.run_folder.folder``).
"""

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from common.errors import SettingsError
from common.files import make_folder
from common.settings import Settings
from common.text import reason
from server_app.run_folder.resuming import SIMULATED, facts_of, settings_kept
from server_app.run_folder.run_files import FACTS, RunFileError, write_facts
from server_app.run_folder.run_lock import FILE as LOCK


def check_place(settings: Settings) -> None:
    """Say before anything is loaded that a run could not be written where it should.

    Makes nothing. What only trying would show,
    :class:`server_app.run_folder.folder.RunFolder` finds out.

    Raises
    ------
    SettingsError
        In one line: which setting and why.
    """
    run = settings.run
    if run.resume_from:
        place, folder = f"resume-from = {run.resume_from!r}", Path(run.resume_from)
        try:
            facts_of(folder, settings)
        except RunFileError as error:
            raise SettingsError(f"{place}: {error}") from None
    else:
        place, folder = f"output-dir = {run.output_dir!r}", Path(run.output_dir)
    try:
        found = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    except OSError as error:
        raise SettingsError(f"{place} cannot be written: {reason(error)}") from None
    if not found.is_dir():
        raise SettingsError(f"{place} cannot be written: {found} is no directory")
    if not os.access(found, os.W_OK | os.X_OK):
        raise SettingsError(f"{place} cannot be written: no right to write in {found}")


def fresh_folder(settings: Settings) -> tuple[str, Path]:
    """Make a directory of a name nobody else has, here or on any device."""
    run, strategy = settings.run, settings.run.strategy
    # The name travels in every order: a file's may have anything in it.
    labels = [
        re.sub(r"[^\w.-]", "-", text)[:30]
        for text in (strategy.replace(".", "-"), settings.data.label)
    ]
    stamp, unique = time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(3)
    name = "-".join([stamp, *labels, f"s{run.seed}", unique])
    folder = Path(run.output_dir).absolute() / name
    make_folder(folder, new=True)
    return name, folder


def make_run(settings: Settings, clients: int) -> Path:
    """Make the directory of a simulation that has not begun; return it.

    It is gone on with, as any run that was stopped before its first round.

    Raises
    ------
    SettingsError
        If it cannot be written.
    """
    check_place(settings)
    try:
        name, path = fresh_folder(settings)
        facts = {"run": name, "settings": settings_kept(settings), SIMULATED: clients}
        write_facts(path, facts)
    except OSError as error:
        place = f"output-dir = {settings.run.output_dir!r}"
        raise SettingsError(f"{place} cannot be written: {reason(error)}") from None
    return path


def remove_unbegun(path: Path) -> None:
    """Remove what :func:`make_run` made if no server has begun to write the run."""
    if not (path / LOCK).exists():
        with suppress(OSError):
            (path / FACTS).unlink()
            path.rmdir()
