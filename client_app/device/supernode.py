"""``python -m client_app supernode``: run Flower's SuperNode from a device's bundle.

The one place that knows which of Flower's flags a device needs; containers, the systemd
unit and the tests all start from here. What follows ``--`` goes to Flower as it is.

A SuperNode that the server refuses stops "gracefully", with exit code 0 and no reason.
So this process stays, passes signals on, and tells what was wrong.
"""

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from client_app.device.clock import clock_offset, clock_problem

Scalar = str | int | float | bool

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # Linux's <sys/prctl.h>; nothing elsewhere


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
        help="further node configuration, as in 'memory-bytes=800000000'; repeatable",
    )
    parser.add_argument(
        "--data-path",
        type=Path,
        metavar="PATH",
        help="file or folder with this device's data (default: what the bundle says)",
    )
    parser.add_argument(
        "bundle", type=Path, help="directory the device's bundle was unpacked into"
    )
    parser.epilog = "What follows -- goes to flower-supernode."


def main(args: argparse.Namespace) -> int:
    """Run ``flower-supernode``.

    Returns
    -------
    int
        Flower's exit code; 1 if the server refuses this device or its clock, 2 if the
        bundle cannot be started from.
    """
    try:
        overrides: dict[str, Scalar] = {"state-dir": str(args.state_dir.absolute())}
        overrides |= _parsed("\n".join(args.set), "--set")
        if args.data_path is not None:
            overrides["data-path"] = str(args.data_path.expanduser().absolute())
        command = supernode_command(args.bundle, overrides)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    superlink, authority = command[2], Path(command[4])
    if problem := clock_problem(clock_offset(superlink, authority)):
        return _failed(problem)
    # In the same environment, whether or not it is activated: Flower finds its other
    # programs through PATH.
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    program = str(Path(scripts) / command[0])
    try:
        argv = [program, *protection(args.bundle), *command[1:]]
        argv += [*own_port(args.flags), *args.flags]
        code, asked = _run(argv, {**os.environ, "PATH": path})
    except OSError as error:
        print(f"error: cannot start {program}: {error.strerror}", file=sys.stderr)
        return 2
    if asked or code:
        return code
    return _failed(
        clock_problem(clock_offset(superlink, authority))
        or f"the SuperLink at {superlink} refused this device: is it still registered "
        "(python -m server_app fleet list), and its clock right?"
    )


def _run(command: list[str], env: dict[str, str]) -> tuple[int, bool]:
    """Run a program to its end; return its exit code and whether it was asked to end.

    Signals that ask this process to end are passed on. Killed, it takes the program
    with it, where the system can do that.
    """
    asked = False
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if process is not None:
            process.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in _ENDING}
    try:
        # A group of its own: a terminal's Ctrl-C would reach it twice, and the second
        # one cuts off Flower's ending.
        process = subprocess.Popen(
            command, env=env, preexec_fn=_end_with_parent, process_group=0
        )
        if asked:  # while it was being started
            process.terminate()
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return (code if code >= 0 else 128 - code), asked


def _end_with_parent() -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _failed(problem: str) -> int:
    print(f"error: {problem}", file=sys.stderr)
    return 1


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
    paths = [bundle / name for name in ("device.toml", "ca.crt", "supernode.key")]
    for path in paths:
        if not os.access(path, os.R_OK):
            problem = "not readable by this user" if path.exists() else "missing"
            raise BundleError(f"{path} is {problem}")
    file, authority, key = paths
    try:
        config = _parsed(file.read_text("utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:  # docker makes directories of these
        raise BundleError(f"{file} cannot be read: {error}") from None
    superlink, node = config.get("superlink"), config.get("node-config")
    if not isinstance(superlink, str) or not isinstance(node, dict):
        raise BundleError(f"{file} needs superlink and a [node-config] table")
    node |= overrides
    return [
        "flower-supernode",
        *("--superlink", superlink),
        *("--root-certificates", str(authority)),
        *("--auth-supernode-private-key", str(key)),
        *("--node-config", " ".join(f"{k}={_toml(k, v)}" for k, v in node.items())),
    ]


def protection(bundle: Path) -> list[str]:
    """Return the flags that keep strangers' code out, as far as the bundle has them.

    Bundles of before apps were signed have neither file. Flower uses the secret with
    ``--isolation=process`` only, where somebody else could ask for tasks.
    """
    flags = {
        "trusted.yaml": "--trusted-entities",
        "superexec.secret": "--superexec-auth-secret-file",
    }
    return [
        word
        for name, flag in flags.items()
        if (bundle / name).exists()
        for word in (flag, str(bundle / name))
    ]


def own_port(flags: Sequence[str]) -> list[str]:
    """Return a free port for the process that trains, where nobody else has to know it.

    Flower starts that process itself unless ``flags`` say otherwise. Its own default
    is one fixed port: the second device on a machine would not start.
    """
    if {"--port", "--isolation"} & {flag.partition("=")[0] for flag in flags}:
        return []
    with socket.create_server(("127.0.0.1", 0)) as door:
        return ["--port", str(door.getsockname()[1])]


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
