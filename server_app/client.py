"""What the server remembers of one client: address, profile, and how far to trust it.

How reliably it answers decides how long it is left alone after it has failed. Who there
is, and who may take part, is the registry's business (``server_app.fleet``).
"""

from dataclasses import dataclass, field

from common.wire import QueryReply
from server_app.device_budget import Link

MEMORY = 0.2
"""Weight of the newest round in the estimate of a client's availability."""
LONGEST_REST = 8
"""Rounds between two probes of a client that has been set aside."""


@dataclass(kw_only=True)
class Client:
    """One device.

    Attributes
    ----------
    row : int
        Its row in matrices over clients.
    name : str
    node_id : int
        Its current address; changes when the device restarts.
    profile : QueryReply
        What it last said about itself.
    tier : int
        Experts the user's ``expert-capacity`` gives it.
    link : Link
        How far away it is, from the run's own messages.
    availability : float
        Running share of rounds it answered, 1 at first.
    failures : int
        Rounds in a row it did not answer.
    rests_until : int
        First round in which it is asked again.
    merged_round : int
        The last round its reply was merged in, 0 if none was.
    holds : list of str
        Versions of parts in its cache, as it last said.
    """

    row: int
    name: str
    node_id: int
    profile: QueryReply
    tier: int
    availability: float = 1.0
    failures: int = 0
    rests_until: int = 0
    link: Link = field(default_factory=Link)
    merged_round: int = 0
    holds: list[str] = field(default_factory=list)

    def note(self, server_round: int, answered: bool) -> None:
        """Remember whether it answered, and how long to leave it alone if not."""
        self.availability += MEMORY * (float(answered) - self.availability)
        self.failures = 0 if answered else self.failures + 1
        # The first failure is retried at once; then the pause doubles.
        pause = min(2 ** (self.failures - 1) - 1, LONGEST_REST) if self.failures else 0
        self.rests_until = server_round + 1 + pause
