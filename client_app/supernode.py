"""``python -m client_app supernode``: start Flower's SuperNode from a device's bundle.

The one place that knows which of Flower's flags a device needs; containers, the systemd
unit and the tests all start from here. What follows ``--`` goes to Flower as it is.
"""

import argparse
import os
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

Scalar = str | int | float | bool


class BundleError(ValueError):
    """A bundle cannot be started from; the message is one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m client_app supernode``."""
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path("state"),
        help="where gates survive a restart (default: ./state)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="further node configuration, as in 'data-dir=\"/data\"'; repeatable",
    )
    parser.add_argument(
        "bundle", type=Path, help="directory the device's bundle was unpacked into"
    )
    parser.epilog = "What follows -- goes to flower-supernode."


def main(args: argparse.Namespace) -> int:
    """Become ``flower-supernode``; 2 if the bundle cannot be started from."""
    try:
        state = str(args.state_dir.absolute())
        overrides = {"state-dir": state, **_parsed("\n".join(args.set), "--set")}
        command = supernode_command(args.bundle, overrides)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # In the same environment, whether or not it is activated: Flower finds its other
    # programs through PATH.
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    program = str(Path(scripts) / command[0])
    try:
        os.execve(program, [*command, *args.flags], {**os.environ, "PATH": path})
    except OSError as error:
        print(f"error: cannot start {program}: {error.strerror}", file=sys.stderr)
        return 2


def supernode_command(bundle: Path, overrides: dict[str, Scalar]) -> list[str]:
    """Return the command line for a device.

    Parameters
    ----------
    bundle : Path
        Holds ``device.toml``, ``ca.crt`` and ``supernode.key``.
    overrides : dict
        Node configuration that wins over the bundle's.

    Raises
    ------
    BundleError
        If a file is missing or ``device.toml`` is not what a bundle has.
    """
    paths = {n: bundle / n for n in ("device.toml", "ca.crt", "supernode.key")}
    for path in paths.values():
        if not os.access(path, os.R_OK):
            problem = "not readable by this user" if path.exists() else "missing"
            raise BundleError(f"{path} is {problem}")
    config = _parsed(paths["device.toml"].read_text("utf-8"), paths["device.toml"])
    superlink, node = config.get("superlink"), config.get("node-config")
    if not isinstance(superlink, str) or not isinstance(node, dict):
        raise BundleError(
            f"{paths['device.toml']} needs superlink and a [node-config] table"
        )
    node |= overrides
    return [
        "flower-supernode",
        *("--superlink", superlink),
        *("--root-certificates", str(paths["ca.crt"])),
        *("--auth-supernode-private-key", str(paths["supernode.key"])),
        *("--node-config", " ".join(f"{k}={_toml(k, v)}" for k, v in node.items())),
    ]


def _parsed(text: str, where: object) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"{where}: {error}") from None


def _toml(key: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    # Flower's parser of --node-config knows no escapes.
    if isinstance(value, str) and not {'"', "\\", "\n"} & set(value):
        return f'"{value}"'
    raise BundleError(
        f"{key} = {value!r} is not allowed: a number, true, false or a text without "
        "quotes and backslashes"
    )
