"""``expertfleet doctor``: what bars this device from training, a line each.

With a bundle it looks at the way to the server and asks it one question, which changes
nothing there; without one it looks at this device alone. ``supernode`` looks at the
same before it starts.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from client_app.device.finding import Finding
from client_app.device.link import WARNING_DAYS, look_at_link
from client_app.device.local_checks import look_around, torch_runs
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
from common.text import one_line


def command(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="directory the device's bundle was unpacked into (default: none, only "
            "this device is looked at)",
        ),
    ] = None,
    state_dir: StateDir = Path("state"),
    set_: Set = [],  # noqa: B006  typer copies it
    data_path: DataPath = None,
    task: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="the fleet's task.toml: look into the data as `check-data` does",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> int:
    """Look at everything.

    Returns
    -------
    int
        0 if all is well, 1 if something is not, 2 if ``--set`` cannot be read.
    """
    try:
        overrides = owner_config(state_dir, set_, data_path)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = []
    for each in look(bundle, overrides, task):
        found.append(each)
        if not as_json:
            status = "ok" if each.ok else "!!"
            print(f"{status}  {each.check:<11}  {one_line(each.text, 600)}", flush=True)
    well = all(each.ok for each in found)
    if as_json:
        print(json.dumps({"ok": well, "checks": [asdict(each) for each in found]}))
    return 0 if well else 1


def look(
    folder: Path | None, overrides: dict[str, Scalar], task: Path | None = None
) -> Iterator[Finding]:
    """Yield what is found, first of what lies in the way of the rest."""
    bundle = None
    node: dict[str, object] = {}
    if folder is not None:
        try:
            bundle = read_bundle(folder)
        except BundleError as error:
            yield Finding(check="bundle", text=str(error), ok=False)
    if bundle is not None:
        node |= bundle.node
        name = node.get("name") or "a device without a name"
        yield Finding(check="bundle", text=f"{name}, to {bundle.superlink}")
        way = look_at_link(bundle)
        yield from way
        if all(each.ok for each in way):
            yield _speed(bundle, overrides)
        yield from _certificate(bundle)
    node |= overrides
    found = [*look_around(node), torch_runs()]
    yield from found
    if task and node.get("data-path") and all(each.ok for each in found):
        yield _samples(Path(str(node["data-path"])), task, node)


def _speed(bundle: Bundle, overrides: dict[str, Scalar]) -> Finding:
    said, _ = declared(bundle.node | overrides)
    speed = said or measured_uplink(bundle)
    try:
        return Finding(check="link", text=described(speed, measured=not said))
    except ValueError as error:
        return Finding(check="link", text=str(error), ok=False)


def _certificate(bundle: Bundle) -> Iterator[Finding]:
    """Look at what this device shows to other services; older bundles have none."""
    file = bundle.folder / "client.crt"
    if not file.exists():
        return
    try:
        end = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        yield Finding(check="certificate", text=f"{file}: {error}", ok=False)
        return
    cure = f"`fleet renew {bundle.node.get('name', 'NAME')}` on the server"
    days = (end - datetime.now(UTC)).days
    text = f"this device's own is good until {end:%Y-%m-%d}"
    if days < 0:
        text = f"this device's own ended on {end:%Y-%m-%d}: {cure}"
    elif days < WARNING_DAYS:
        text = f"this device's own ends in {days} days: {cure}"
    yield Finding(check="certificate", text=text, ok=days >= 0)


def _samples(path: Path, task: Path, node: dict[str, object]) -> Finding:
    """Look into the data as a round would: this needs torch, and takes its time."""
    from client_app.commands.check_data import read_task_and_settings
    from client_app.data_report import report_on
    from common.errors import DataError, SettingsError

    try:
        settings, shape = read_task_and_settings(task, [])
        report = report_on(path, shape, settings, str(node.get("state-dir") or ""))
    except (DataError, SettingsError) as error:
        return Finding(check="samples", text=str(error), ok=False)
    skipped = sum(map(len, report.skipped.values()))
    text = f"{report.rows} samples of kind {report.kind}, {skipped} skipped"
    return Finding(check="samples", text=report.reason or text, ok=not report.reason)
