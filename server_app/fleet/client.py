"""What the server remembers of one client: address, profile, and how far to trust it.

How reliably it answers decides how long it is left alone after it has failed. Whoever
learns something of a client says so by one of its methods, which alone write here. Who
there is, is in ``server_app.fleet.roster``; who may take part, in
``server_app.fleet.admission``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any

import numpy as np

from common.wire import QueryReply, TrainReport

NOWHERE = -1
"""Node id of a client that is at no known address."""

RESOLUTION = 1.0
"""Seconds below which a transfer cannot be told from Flower's polling."""

COLUMNS = {
    "tier": np.int64,
    "failures": np.int64,
    "rests_until": np.int64,
    "merged_round": np.int64,
    "has_base": np.bool_,
    "base_kept": np.int64,
    "outdated": np.bool_,
    "latency": np.float64,
    "speed": np.float64,
}
"""Numbers that a checkpoint keeps of every client, an array each."""

LONGEST_REST = 8
"""Rounds between two probes of a client that has been set aside."""


def rest(failures: int) -> int:
    """Return how many rounds to leave somebody alone after failures in a row.

    After the first nobody is left alone; then the pause doubles.
    """
    return min(2 ** (min(failures, 32) - 1) - 1, LONGEST_REST) if failures else 0


@dataclass(kw_only=True, slots=True)
class Link:
    """What the run's own messages say about the way to a client.

    Attributes
    ----------
    latency : float or None
        Seconds of the quickest exchange beyond what the device worked on it: polling,
        starting a process, a message of hardly any bytes. None before the first.
    speed : float
        Bytes per second, both ways together, a running mean; 0 where every transfer so
        far was too quick to be measured.
    """

    latency: float | None = None
    speed: float = 0.0

    def observe(self, elapsed: float, worked: float, nbytes: int) -> None:
        """Take in one exchange: seconds until the reply, seconds of work, bytes."""
        waited = max(0.0, elapsed - worked)
        if self.latency is None or waited < self.latency:
            self.latency = waited
        elif (seconds := waited - self.latency) > RESOLUTION:
            seen = nbytes / seconds
            self.speed = seen if not self.speed else 0.7 * self.speed + 0.3 * seen


@dataclass(kw_only=True, slots=True)
class Client:
    """One device.

    Attributes
    ----------
    row : int
        Its row in matrices over clients.
    name : str
    node_id : int
        Its current address; changes when the device restarts. ``NOWHERE`` if it has
        none, until it says so itself.
    profile : QueryReply
        What it last said about itself.
    tier : int
        Experts the user's ``expert-capacity`` gives it.
    link : Link
        How far away it is, from the run's own messages.
    failures : int
        Rounds in a row it did not answer.
    vouched : bool
        Whether it has answered a query since the last round it was in.
    rests_until : int
        First round in which it is asked again.
    merged_round : int
        The last round its reply was merged in, 0 if none was.
    holds : list of str
        Versions of parts in its cache, as it last said.
    has_base : bool
        Whether it has the frozen base of the model.
    base_kept : int
        If not, bytes of it that it keeps.
    outdated : bool
        Whether it has more samples than it said, so that it is to be asked again.
    """

    row: int
    name: str
    node_id: int
    profile: QueryReply
    tier: int = 1
    failures: int = 0
    vouched: bool = False
    rests_until: int = 0
    link: Link = field(default_factory=Link)
    merged_round: int = 0
    holds: list[str] = field(default_factory=list)
    has_base: bool = False
    base_kept: int = 0
    outdated: bool = False
    _told: str = field(default="", repr=False, compare=False)

    def introduce(self, node_id: int, profile: QueryReply, elapsed: float) -> None:
        """Take over what it says of itself, from where and after how many seconds."""
        self.node_id, self.profile, self._told = node_id, profile, ""
        self.vouched, self.outdated = True, False
        self.note_base(profile.base_kept, whole=profile.has_base)
        self.observe(elapsed, profile.seconds_total, 0)

    def move(self, row: int) -> None:
        """Give it another row, while nothing follows rows yet."""
        self.row = row

    def grant(self, tier: int) -> None:
        """Give it a tier."""
        self.tier = tier

    def leave(self) -> None:
        """Forget where it is."""
        self.node_id = NOWHERE

    def claim(self, *, more: bool) -> None:
        """Take note of whether it claims more samples than it said it has."""
        self.outdated = more

    def ask_again(self) -> None:
        """Have it say anew who it is."""
        self.outdated = True

    def observe(self, elapsed: float, worked: float, nbytes: int) -> None:
        """Learn from one exchange how far away it is; see :class:`Link`."""
        self.link.observe(elapsed, worked, nbytes)

    def take_cache(self, report: TrainReport) -> None:
        """Take over what it says that it has in its cache."""
        self.holds = report.holds

    def take_memory(self, report: TrainReport) -> None:
        """Take over what it says about its capacity."""
        names = ("memory_bytes", "memory_available", "expert_cap")
        said = {name: getattr(report, name) for name in names}
        if any(getattr(self.profile, name) != each for name, each in said.items()):
            self.profile, self._told = self.profile.model_copy(update=said), ""

    def note_base(self, kept: int, *, whole: bool) -> None:
        """Take over what it says it has of the frozen base."""
        self.has_base, self.base_kept = whole, kept

    def note_merged(self, server_round: int) -> None:
        """Remember that its reply of a round was merged."""
        self.merged_round = server_round

    def forget_cache(self) -> None:
        """Remember that it holds no parts any more."""
        self.holds = []

    def note_answer(self, server_round: int, answered: bool) -> None:
        """Remember whether it answered, and how long to leave it alone if not."""
        self.failures = 0 if answered else self.failures + 1
        self.vouched = False
        self.rests_until = server_round + 1 + rest(self.failures)

    def rests(self, server_round: int) -> bool:
        """Whether it is left alone in a round."""
        return server_round < self.rests_until

    def is_doubtful(self, limit: int) -> bool:
        """Whether it has failed so often that it has to answer a query first."""
        return self.failures >= limit and not self.vouched

    def profile_text(self) -> str:
        """Return what a checkpoint keeps of what it last said; written once."""
        if not self._told:
            said = self.profile.model_dump(exclude_defaults=True)
            self._told = json.dumps({"protocol": self.profile.protocol, **said})
        return self._told


def states(clients: Sequence[Client]) -> dict[str, Any]:
    """Return what a checkpoint keeps of clients: all that outlives a connection.

    Column by column, since it is written every round and few have changed.

    Parameters
    ----------
    clients : sequence of Client
        By row.
    """
    return {
        "profiles": [each.profile_text() for each in clients],
        "holds": {str(each.row): each.holds for each in clients if each.holds},
        **{
            name: np.array([_number(each, name) for each in clients], dtype=dtype)
            for name, dtype in COLUMNS.items()
        },
    }


def restored(state: Mapping[str, Any]) -> list[Client]:
    """Return the clients of a checkpoint; where they are has to be found out.

    Raises
    ------
    ValueError
        If it keeps something else of them.
    """
    columns = {**state}
    profiles, holds = columns.pop("profiles"), columns.pop("holds")
    if columns.keys() != COLUMNS.keys():
        names = sorted(columns.keys() ^ COLUMNS.keys())
        raise ValueError(f"of clients it has, or lacks, {', '.join(names)}")
    found = []
    lists = (column.tolist() for column in columns.values())
    for row, (text, *values) in enumerate(zip(profiles, *lists, strict=True)):
        fields = dict(zip(columns, values, strict=True))
        latency, speed = fields.pop("latency"), fields.pop("speed")
        profile = QueryReply(**json.loads(text))
        client = Client(
            row=row,
            name=profile.client,
            node_id=NOWHERE,
            profile=profile,
            link=Link(latency=None if isnan(latency) else latency, speed=speed),
            holds=holds.get(str(row), []),
            **fields,
        )
        found.append(client)
    return found


def _number(client: Client, name: str) -> Any:
    if name not in ("latency", "speed"):
        return getattr(client, name)
    value = getattr(client.link, name)
    return nan if value is None else value
