"""``fleet status``: what every device of a run is, holds and has done so far.

Read from the files the run leaves while it goes on, so it works beside a running server
and long after it; the SuperLink's word on who is connected comes on top where a fleet
directory says how to reach one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import nearest
from common.text import table
from server_app.provisioning import ProvisioningError
from server_app.run_folder.run_files import RunFileError, read_facts, read_metrics

HEADER = (
    *("device", "state", "budget", "holds", "last seen"),
    *("MB down", "MB up", "s/round", "peak MiB"),
)


@dataclass
class DeviceStatus:
    """One device as the run saw it."""

    name: str
    state: str = "-"
    budget: int | None = None
    experts: list[int] = field(default_factory=list)
    last_round: int | None = None
    last_seen: str = ""
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: list[float] = field(default_factory=list)
    memory_peak: int | None = None

    def add(self, record: Mapping[str, Any], client: Mapping[str, Any]) -> None:
        """Take in what one round's record says of it."""
        self.budget, self.experts = client["budget"], client["experts"]
        self.bytes_down += client["bytes_down"]
        self.bytes_up += client["bytes_up"]
        if client["replied"]:
            self.state = "answered"
            self.last_round, self.last_seen = record["round"], record["ended"]
            self.seconds.append(client["seconds_until_reply"])
            self.memory_peak = client["memory_peak"]
        else:
            reason = record["rejected"].get(self.name, "no reply")
            self.state = f"round {record['round']}: {reason}"

    def row(self) -> tuple[str, ...]:
        """Return its cells, under ``HEADER``."""
        seen = f"round {self.last_round}, {self.last_seen}" if self.last_seen else "-"
        mean = sum(self.seconds) / len(self.seconds) if self.seconds else None
        return (
            self.name,
            self.state,
            "-" if self.budget is None else str(self.budget),
            ",".join(map(str, self.experts)) or "-",
            seen,
            f"{self.bytes_down / 1e6:.2f}",
            f"{self.bytes_up / 1e6:.2f}",
            "-" if mean is None else f"{mean:.1f}",
            "-" if self.memory_peak is None else f"{self.memory_peak / 2**20:.0f}",
        )


def run_folder(given: Path | None, output_dir: Path = Path("results")) -> Path:
    """Return the run that is meant: the one given, else the newest.

    Raises
    ------
    ProvisioningError
        If it is no run, or there is none.
    """
    if given is not None:
        for folder in (given, output_dir / given):
            if (folder / "run.json").is_file():
                return folder
        names = [path.parent.name for path in output_dir.glob("*/run.json")]
        raise ProvisioningError(
            f"{str(given)!r} is not the directory of a run{nearest(given.name, names)}"
        )
    runs = sorted(output_dir.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise ProvisioningError(
            f"no run in {output_dir}: name one, as in `fleet status results/RUN`"
        )
    return runs[-1].parent


def devices_of(folder: Path) -> dict[str, DeviceStatus]:
    """Return every device of a run by name, those it refused included.

    Raises
    ------
    ProvisioningError
        If the run's files cannot be read.
    """
    try:
        facts = read_facts(folder)
        found = {
            name: DeviceStatus(name, state="connected", budget=client["budget"])
            for name, client in facts.get("clients", {}).items()
        }
        for record in read_metrics(folder)[0]:
            for client in record["clients"]:
                name = client["client"]
                found.setdefault(name, DeviceStatus(name)).add(record, client)
        for name, reason in facts.get("refused", {}).items():
            found.setdefault(name, DeviceStatus(name)).state = f"refused: {reason}"
    except RunFileError as error:
        raise ProvisioningError(str(error)) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ProvisioningError(f"cannot read the run in {folder}: {error!r}") from None
    return found


def status(folder: Path, connected: Mapping[str, str]) -> str:
    """Return the table of a run's devices.

    Parameters
    ----------
    folder : Path
        The run's directory.
    connected : mapping of str to str
        The SuperLink's word on devices, by name; empty where none was asked.
    """
    devices = devices_of(folder)
    for name, word in connected.items():
        device = devices.setdefault(name, DeviceStatus(name, state="not in this run"))
        device.state = f"{word}; {device.state}"
    rows = [HEADER, *(devices[name].row() for name in sorted(devices))]
    return f"{folder.name}\n{table(rows)}"
