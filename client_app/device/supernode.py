"""``python -m client_app supernode``: run Flower's SuperNode from a device's bundle.

The one place that knows which of Flower's flags a device needs; containers, the systemd
unit and the tests all start from here. What follows ``--`` goes to Flower as it is.

Before it starts, and again when it has ended by itself, the way to the server is looked
at (``link``): a SuperNode that the server refuses stops "gracefully", with exit code 0
and no reason, and one with a wrong clock is refused. What passes by itself is waited
for: after a power cut the network and the time come later than the device. Then this
process stays, passes signals on, and tells what was wrong.
"""

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from client_app.device.finding import Finding, first_problem
from client_app.device.link import look_at_link
from client_app.device.local_checks import look_around
from client_app.device.unpacked_bundle import (
    Bundle,
    BundleError,
    Scalar,
    add_owner_arguments,
    owner_config,
    read_bundle,
)

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds between two looks at a server that cannot be reached: doubled each time."""

REMINDER = 600.0
"""Seconds after which it is said again what is waited for."""

NOT_ACTIVATED = 305 % 256
"""What is left of Flower's exit code for a device that is online already."""

ALIVE = (
    "waiting: the SuperLink at {} takes an earlier start of this device for alive, for "
    "up to a minute; longer only if another machine has the same bundle"
)
NEXT_TRY = 15.0

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # Linux's <sys/prctl.h>; nothing elsewhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m client_app supernode``."""
    add_owner_arguments(parser)
    parser.add_argument(
        "bundle", type=Path, help="directory the device's bundle was unpacked into"
    )
    parser.epilog = "What follows -- goes to flower-supernode."


def main(args: argparse.Namespace) -> int:
    """Run ``flower-supernode`` once nothing is in its way.

    Returns
    -------
    int
        Flower's exit code; 1 if only somebody who comes here or to the server can make
        it start, 2 if the bundle cannot be started from.
    """
    try:
        bundle, overrides = read_bundle(args.bundle), owner_config(args)
        command = supernode_command(bundle, overrides)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # In the same environment, whether or not it is activated: Flower finds its other
    # programs through PATH.
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    program = str(Path(scripts) / command[0])
    argv = [program, *protection(args.bundle), *command[1:]]
    while True:
        if problem := wait_until_well(bundle, overrides, args.flags):
            return _failed(problem.text)
        try:
            flags = [*own_port(args.flags), *args.flags]
            code, asked = _run([*argv, *flags], {**os.environ, "PATH": path})
        except OSError as error:
            print(f"error: cannot start {program}: {error.strerror}", file=sys.stderr)
            return 2
        if asked or code not in (0, NOT_ACTIVATED):
            return code
        if first_problem(look_at_link(bundle)) is not None:
            continue
        if not code:
            return _failed(
                f"the SuperLink at {bundle.superlink} refused this device, whose key "
                "it knows and whose clock is right"
            )
        print(ALIVE.format(bundle.superlink), file=sys.stderr, flush=True)
        time.sleep(NEXT_TRY)


def wait_until_well(
    bundle: Bundle, overrides: dict[str, Scalar], flags: Sequence[str]
) -> Finding | None:
    """Wait for what passes by itself; return what does not, None if all is well."""
    said, reminded, pauses = "", 0.0, _pauses()
    while True:
        found = [] if _trains_elsewhere(flags) else look_around(bundle.node | overrides)
        problem = first_problem(found) or first_problem(look_at_link(bundle))
        if problem is None or not problem.passes:
            return problem
        if problem.check != said or time.monotonic() > reminded + REMINDER:
            said, reminded = problem.check, time.monotonic()
            print(f"waiting: {problem.text}", file=sys.stderr, flush=True)
        time.sleep(next(pauses))


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)


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


def supernode_command(bundle: Bundle, overrides: dict[str, Scalar]) -> list[str]:
    """Return the command line for a device.

    Parameters
    ----------
    bundle : Bundle
    overrides : dict
        Node configuration that wins over the bundle's.

    Raises
    ------
    BundleError
        If Flower's command line cannot carry a value.
    """
    node = bundle.node | overrides
    return [
        "flower-supernode",
        *("--superlink", bundle.superlink),
        *("--root-certificates", str(bundle.authority)),
        *("--auth-supernode-private-key", str(bundle.key)),
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
    if {"--port", "--isolation"} & _names(flags):
        return []
    with socket.create_server(("127.0.0.1", 0)) as door:
        return ["--port", str(door.getsockname()[1])]


def _trains_elsewhere(flags: Sequence[str]) -> bool:
    # Then this process sees neither the data nor the memory that training has.
    return "--isolation" in _names(flags)


def _names(flags: Sequence[str]) -> set[str]:
    return {flag.partition("=")[0] for flag in flags}


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
