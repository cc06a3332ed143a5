"""How far a run is and what its devices did, by the files it leaves.

They are read while the run goes on, and long after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import nearest
from server_app.provisioning import ProvisioningError
from server_app.run_folder.run_files import RunFileError, read_facts, read_metrics
from server_app.run_folder.run_state import run_state


@dataclass
class DeviceRecord:
    """What a run says of one device.

    Attributes
    ----------
    name : str
    said : str
        What came of it last: ``answered``, or why not.
    refused : str
        Why it may not take part; "" if it may.
    budget : int or None
        Experts it can hold.
    experts : list of int
        Those of the newest order it answered: what it holds.
    last_round : int or None
        Of its newest reply.
    last_reply : str
        When that round ended (UTC); "" if there is none.
    resting_until : int or None
        First round that asks it again, where it is left alone.
    bytes_down, bytes_up : int
    seconds : list of float
        From order to reply.
    memory_peak : int or None
        Bytes.
    """

    name: str
    said: str = "not in this run"
    refused: str = ""
    budget: int | None = None
    experts: list[int] = field(default_factory=list)
    last_round: int | None = None
    last_reply: str = ""
    resting_until: int | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: list[float] = field(default_factory=list)
    memory_peak: int | None = None

    @property
    def mean_seconds(self) -> float | None:
        """Mean time from order to reply."""
        return sum(self.seconds) / len(self.seconds) if self.seconds else None

    def add(self, record: Mapping[str, Any], client: Mapping[str, Any]) -> None:
        """Take in what one round's record says of it."""
        self.budget = client["budget"]
        self.bytes_down += client["bytes_down"]
        self.bytes_up += client["bytes_up"]
        if client["replied"]:
            self.said, self.experts = "answered", client["experts"]
            self.last_round, self.last_reply = record["round"], record["ended"]
            self.seconds.append(client["seconds_until_reply"])
            self.memory_peak = client["memory_peak"]
        else:
            reason = record["rejected"].get(self.name, "no reply")
            self.said = f"round {record['round']}: {reason}"


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far a run is.

    Attributes
    ----------
    path : Path
    name : str
    state : str
        See ``server_app.run_folder.run_state``.
    why : str
        Why it failed, or why no round follows.
    flower_run : str
        Flower's number; "" where Flower did not start it.
    round, rounds : int
        Rounds done, and ``num-rounds``.
    ended : str
        When the newest round ended (UTC); "" before the first.
    last : mapping
        The line of the newest round; empty before the first.
    devices : dict of str to DeviceRecord
    """

    path: Path
    name: str
    state: str
    why: str
    flower_run: str
    round: int
    rounds: int
    ended: str
    last: Mapping[str, Any]
    devices: dict[str, DeviceRecord]

    @property
    def refused(self) -> int:
        """Replies of the newest round that broke a rule or a bound."""
        return int(self.last.get("refused", 0))

    @property
    def accepted(self) -> int:
        """Replies of the newest round that did not."""
        return sum(client["replied"] for client in self.last.get("clients", ()))


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


def read_status(folder: Path) -> RunStatus:
    """Return how a run stands, with every device of it, those it refused included.

    Raises
    ------
    ProvisioningError
        If the run's files cannot be read.
    """
    try:
        facts = read_facts(folder)
        records, _ = read_metrics(folder)
        return RunStatus(
            path=folder,
            name=facts["run"],
            state=run_state(folder, facts),
            why=str(facts.get("why") or facts.get("stopped") or ""),
            flower_run=str(facts.get("flower_run", "")),
            round=records[-1]["round"] if records else 0,
            rounds=int(facts["settings"]["num-rounds"]),
            ended=records[-1]["ended"] if records else "",
            last=records[-1] if records else {},
            devices=_devices(facts, records),
        )
    except RunFileError as error:
        raise ProvisioningError(str(error)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProvisioningError(f"cannot read the run in {folder}: {error!r}") from None


def _devices(
    facts: Mapping[str, Any], records: list[dict[str, Any]]
) -> dict[str, DeviceRecord]:
    found = {
        name: DeviceRecord(name, said="connected", budget=client["budget"])
        for name, client in facts.get("clients", {}).items()
    }
    for record in records:
        for client in record["clients"]:
            name = client["client"]
            found.setdefault(name, DeviceRecord(name)).add(record, client)
    for name, until in (records[-1].get("resting", {}) if records else {}).items():
        found.setdefault(name, DeviceRecord(name)).resting_until = int(until)
    for name, reason in facts.get("refused", {}).items():
        device = found.setdefault(name, DeviceRecord(name))
        device.refused, device.said = reason, f"refused: {reason}"
    return found
