"""What the log and the record of a round say of clients that join and of their data."""

import logging
from collections.abc import Sequence

from common.text import one_line
from common.wire import QueryReply
from server_app.fleet.agreement import Agreement
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.client import Client

logger = logging.getLogger("flwr.expertfleet")

MOST_LINES = 50
"""Clients with a line each; of more that join at once there is one line in all."""

_NAMED = 5


class Joining:
    """Tells of clients, everything once.

    Parameters
    ----------
    budget : DeviceBudget
    agreement : Agreement

    Attributes
    ----------
    notes : list of str
        For the record of the next round.
    """

    def __init__(self, budget: DeviceBudget, agreement: Agreement) -> None:
        self._budget = budget
        self._agreement = agreement
        self.notes: list[str] = []
        self._warned: set[tuple[str, str]] = set()

    def note(self, text: str | None) -> None:
        """Log something, and keep it for the record of the next round."""
        if text:
            logger.warning("%s", text)
            self.notes.append(text)

    def warn(self, client: Client) -> None:
        """Say what is odd about a client's data, by its own word and the fleet's."""
        profile = client.profile
        for text in (*profile.warnings, self._agreement.warning(profile)):
            if text and (client.name, text) not in self._warned:
                self._warned.add((client.name, text))
                self.note(f"{client.name}: {text}")

    def tell(self, joined: Sequence[tuple[Client, QueryReply]]) -> None:
        """Say who has joined, with what.

        Parameters
        ----------
        joined : sequence of (Client, QueryReply)
            Each with what it says of itself, within what its owner allows.
        """
        own = [profile for _, profile in joined if not profile.num_partitions]
        if len(own) > MOST_LINES:
            logger.info(
                "%d clients with data of their own join: they train on %d of %d rows, "
                "%d unreadable",
                len(own),
                sum(profile.num_examples for profile in own),
                sum(profile.rows for profile in own),
                sum(profile.unreadable for profile in own),
            )
        for client, profile in joined:
            # Virtual clients have no machine of their own, and may be thousands.
            if profile.memory_available is not None:
                self._machine(client, profile)
            if not profile.num_partitions and len(own) <= MOST_LINES:
                classes = self._agreement.told_classes
                logger.info("%s", own_rows(profile, classes))

    def _machine(self, client: Client, profile: QueryReply) -> None:
        logger.info(
            "%s joins: %d experts (tier %d, limits: %s), %d MiB of memory, %g cores%s",
            client.name,
            self._budget(client.tier, profile, client.link),
            client.tier,
            self._budget.limits(profile, client.link),
            profile.memory_bytes >> 20,
            profile.cores,
            f", {profile.board}" if profile.board else "",
        )


def own_rows(profile: QueryReply, classes: Sequence[str]) -> str:
    """Return on how many of its own rows a device trains, and what they lack.

    Parameters
    ----------
    classes : sequence of str
        Of which it says how many samples it has; none if it does not say.
    """
    of = f" ({profile.data_format})" if profile.data_format else ""
    text = (
        f"trains on {profile.num_examples} of {profile.rows} rows of "
        f"{profile.client}{of}, {profile.unreadable} unreadable"
    )
    pairs = zip(classes, profile.per_class, strict=False)
    if lacking := [one_line(name, 40) for name, count in pairs if not count]:
        more = len(lacking) - _NAMED
        rest = f" and {more} more classes" if more > 0 else ""
        text += f"; none of {', '.join(lacking[:_NAMED])}{rest}"
    return text
