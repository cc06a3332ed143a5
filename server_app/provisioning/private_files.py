"""The fleet's files: written in one piece, to nowhere another user decides about."""

import os
import stat
from pathlib import Path

from common.files import atomic_write
from server_app.provisioning import ProvisioningError


def read(path: Path) -> bytes:
    """Return a file's content; ``ProvisioningError`` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProvisioningError(f"cannot read {path}: {error.strerror}") from None


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file in one piece; ``ProvisioningError`` if it cannot be written."""
    try:
        with atomic_write(path, mode) as file:
            file.write(content)
    except OSError as error:
        raise ProvisioningError(f"cannot write {path}: {error.strerror}") from None


def refuse_strangers(path: Path) -> None:
    """Raise ``ProvisioningError`` if another user decides what this path is."""
    path = path.absolute()
    for part in (*reversed(path.parents), path):
        try:
            found = part.lstat()
        except OSError:  # not there yet, or told about by whoever opens it
            return
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in {0, os.geteuid()}:
            raise ProvisioningError(
                f"{part} is a link of user {found.st_uid}, who could lead the fleet's "
                "keys anywhere: name the directory itself"
            )
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise ProvisioningError(f"cannot use {path}: {error.strerror}") from None
    refuse_owner(path, owner)


def refuse_owner(path: Path, owner: int) -> None:
    """Raise ``ProvisioningError`` if the owner of this path is another user."""
    if owner != os.geteuid():
        raise ProvisioningError(
            f"{path} belongs to user {owner}, not to you ({os.geteuid()}): only its "
            "owner works with a fleet"
        )
