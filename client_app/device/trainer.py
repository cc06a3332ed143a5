"""``python -m client_app trainer``: Flower's SuperExec, where it runs by itself.

``supernode`` starts it as well, unless it is told that training is elsewhere
(``--isolation=process``): then this is what runs there. What follows ``--`` goes to
``flower-superexec`` as it is.
"""

import os
import sys

import typer

from client_app.device.resident.starting import (
    WARM_SECONDS,
    KeepWarm,
    new_variables,
    scripts,
)
from common.commands import flags_of


def command(context: typer.Context, keep_warm: KeepWarm = WARM_SECONDS) -> int:
    """Become ``flower-superexec``; 2 if it cannot be started."""
    program = str(scripts() / "flower-superexec")
    env = {**os.environ, **new_variables(keep_warm)}
    try:
        os.execve(program, [program, *flags_of(context)], env)
    except OSError as error:
        print(f"error: cannot start {program}: {error.strerror}", file=sys.stderr)
        return 2
