"""The variables by which Flower finds what is resident, and the option that says so."""

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from client_app.device.resident.hand_over import FOLDER, KEEP_WARM

WARM_SECONDS = 900.0
"""Longer than the pauses between a run's rounds; then a device has its memory back."""

KeepWarm = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="how long what trains keeps torch, the app and the data ready for the "
        "next message; 0 imports them for every message",
    ),
]

PROGRAMS = Path(__file__).with_name("bin")


def scripts() -> Path:
    """Return where the programs of this Python environment are."""
    return Path(sysconfig.get_path("scripts"))


@contextmanager
def resident_variables(keep_warm: float) -> Iterator[dict[str, str]]:
    """Yield variables for the Flower program that starts what handles messages.

    Its ``PATH`` begins with this environment, whether or not that is activated: Flower
    finds its other programs through it.

    Parameters
    ----------
    keep_warm : float
        Seconds; with 0 nothing is resident.
    """
    variables = new_variables(keep_warm)
    try:
        yield variables
    finally:
        if folder := variables.get(FOLDER):
            shutil.rmtree(folder, ignore_errors=True)


def new_variables(keep_warm: float) -> dict[str, str]:
    """Return the same for who leaves its folder to what is resident."""
    places = [str(scripts()), os.environ.get("PATH", "")]
    variables = {}
    if keep_warm and _able():
        try:
            variables[FOLDER] = tempfile.mkdtemp(prefix="expertfleet-")
        except OSError as error:
            print(f"nothing is kept warm: {error}", file=sys.stderr, flush=True)
        else:
            variables[KEEP_WARM] = str(keep_warm)
            places.insert(0, str(PROGRAMS))
    return {**variables, "PATH": os.pathsep.join(places)}


def _able() -> bool:
    return hasattr(os, "pidfd_open") and os.access(PROGRAMS / "flwr-clientapp", os.X_OK)
