"""``python -m client_app supernode``: run Flower's SuperNode from a device's bundle.

The one place that knows which of Flower's flags a device needs; containers, the systemd
unit and the tests all start from here. What follows ``--`` goes to Flower as it is.

Before it starts, and again when it has ended by itself, the way to the server is looked
at (``link``): a SuperNode that the server refuses stops "gracefully", with exit code 0
and no reason, and one with a wrong clock is refused. What passes by itself is waited
for: after a power cut the network and the time come later than the device. Then the
link is measured, unless its owner has said how fast it is, and messages are cut for it
(``common.chunks``). This process stays, passes signals on, and tells what was wrong.
"""

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from client_app.device.finding import Finding, first_problem
from client_app.device.flower_program import START_ANEW, run_program
from client_app.device.link import look_at_link
from client_app.device.local_checks import look_around
from client_app.device.resident.starting import (
    WARM_SECONDS,
    KeepWarm,
    resident_variables,
)
from client_app.device.unpacked_bundle import (
    Bundle,
    BundleError,
    DataPath,
    Scalar,
    Set,
    StateDir,
    owner_config,
    read_bundle,
)
from client_app.device.uplink import declared, described, measured_uplink
from common.chunks import chosen_size
from common.commands import flags_of

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

ANEW = "starting anew in a moment: the SuperNode has ended, and has said why"


def command(
    context: typer.Context,
    bundle: Annotated[
        Path, typer.Argument(help="directory the device's bundle was unpacked into")
    ],
    state_dir: StateDir = Path("state"),
    set_: Set = [],  # noqa: B006  typer copies it
    data_path: DataPath = None,
    keep_warm: KeepWarm = WARM_SECONDS,
) -> int:
    """Run ``flower-supernode`` with what the options say, see :func:`main`."""
    try:
        overrides = owner_config(state_dir, set_, data_path)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return main(bundle, overrides, flags_of(context), keep_warm=keep_warm)


def main(
    folder: Path,
    overrides: dict[str, Scalar],
    flags: Sequence[str] = (),
    *,
    keep_warm: float = WARM_SECONDS,
) -> int:
    """Run ``flower-supernode`` once nothing is in its way.

    Returns
    -------
    int
        Flower's exit code; 1 if only somebody who comes here or to the server can make
        it start, 2 if the bundle cannot be started from.
    """
    try:
        bundle = read_bundle(folder)
        supernode_command(bundle, overrides)
        chosen_size(0.0)
    except ValueError as error:  # BundleError among them
        print(f"error: {error}", file=sys.stderr)
        return 2
    if _trains_elsewhere(flags):  # which has its own say
        keep_warm = 0.0
    program = [sys.executable, "-m", "client_app.device.flower_supernode"]
    while True:
        if problem := wait_until_well(bundle, overrides, flags):
            return _failed(problem.text)
        argv = [*program, *protection(folder)]
        argv += supernode_command(bundle, overrides | found_link(bundle, overrides))[1:]
        every = [*own_port(flags), *flags]
        try:
            with resident_variables(keep_warm) as found:
                env = {**os.environ, **found}
                code, asked = run_program([*argv, *every], env)
        except OSError as error:
            print(f"error: cannot start {argv[0]}: {error.strerror}", file=sys.stderr)
            return 2
        if asked or code not in (0, NOT_ACTIVATED, START_ANEW):
            return code
        if first_problem(look_at_link(bundle)) is not None:
            continue
        if code == START_ANEW:
            print(ANEW, file=sys.stderr, flush=True)
        elif not code:
            return _failed(
                f"the SuperLink at {bundle.superlink} refused this device, whose key "
                "it knows and whose clock is right"
            )
        else:
            print(ALIVE.format(bundle.superlink), file=sys.stderr, flush=True)
        time.sleep(NEXT_TRY)


def found_link(bundle: Bundle, overrides: dict[str, Scalar]) -> dict[str, Scalar]:
    """Find out how fast the link is; say how messages are cut for it.

    Returns
    -------
    dict
        Node configuration: the speed, where it was measured. The process that trains
        cuts its messages by that, wherever it runs, and the server is told.
    """
    said, _ = declared(bundle.node | overrides)
    up = said or round(measured_uplink(bundle), 1)
    print(f"link: {described(up, measured=not said)}", flush=True)
    return {"uplink-bytes-per-second": up} if up and not said else {}


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
