"""A device's bundle as it was unpacked, and what its owner says on the command line.

What is in a bundle is said in ``server_app.provisioning.bundle``, which packs it.
"""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

Scalar = str | int | float | bool


class BundleError(ValueError):
    """A bundle cannot be started from; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What is needed of a bundle to reach the server.

    Attributes
    ----------
    folder : Path
    superlink : str
        HOST:PORT.
    node : dict
        Flower's node configuration.
    """

    folder: Path
    superlink: str
    node: dict[str, Any]

    @property
    def authority(self) -> Path:
        """The certificates that the server's must be signed by."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """The private key that this device is known by."""
        return self.folder / "supernode.key"


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle.

    Raises
    ------
    BundleError
        If a file is missing or ``device.toml`` is not what a bundle has.
    """
    paths = [folder / name for name in ("device.toml", "ca.crt", "supernode.key")]
    for path in paths:
        if not os.access(path, os.R_OK):
            problem = "not readable by this user" if path.exists() else "missing"
            raise BundleError(f"{path} is {problem}")
    file = paths[0]
    try:
        config = _parsed(file.read_text("utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:  # docker makes directories of these
        raise BundleError(f"{file} cannot be read: {error}") from None
    superlink, node = config.get("superlink"), config.get("node-config")
    if not isinstance(superlink, str) or not isinstance(node, dict):
        raise BundleError(f"{file} needs superlink and a [node-config] table")
    return Bundle(folder=folder, superlink=superlink, node=node)


StateDir = Annotated[
    Path, typer.Option(metavar="DIR", help="where gates survive a restart")
]
Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="further node configuration, as in 'memory-bytes=800000000'; repeatable",
    ),
]
DataPath = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="file or folder with this device's data (default: what the bundle says)",
    ),
]


def owner_config(
    state_dir: Path, given: Sequence[str] = (), data_path: Path | None = None
) -> dict[str, Scalar]:
    """Return the node configuration that wins over a bundle's.

    Raises
    ------
    BundleError
        If ``--set`` is no TOML.
    """
    config: dict[str, Scalar] = {"state-dir": str(state_dir.absolute())}
    config |= _parsed("\n".join(given), "--set")
    if data_path is not None:
        config["data-path"] = str(data_path.expanduser().absolute())
    return config


def _parsed(text: str, where: object) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"{where}: {error}") from None
