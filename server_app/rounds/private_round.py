"""What differs in a run with differential privacy (docs/privacy.md).

Who sums and adds noise is ``server_app.merging.noisy_sums``, what it costs is in
``server_app.privacy``. Here is where the two meet a round: what it was planned to be,
that it is paid for first, and what a strategy learns of it.
"""

import logging
import secrets
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import SettingsError
from common.left_out import without_samples
from common.wire import TrainReport
from server_app.contract import Algorithm, Reply
from server_app.merging.noisy_sums import PrivateSums
from server_app.privacy.spending import PrivacyBudget
from server_app.rounds.orders import SentOrder
from server_app.run_error import RunError
from server_app.run_folder.folder import RunFolder

logger = logging.getLogger("flwr.expertfleet")

COVERED = "the updates of all rounds, of each client as a whole"
ALWAYS_OPEN = (
    "who took part and answered, and when",
    "what a device says of its machine",
)
IN_REPORTS = (
    "sample counts",
    "samples, accuracy and loss by expert, and the fitness made of them",
    "accuracies and losses that clients report, by class as well",
    "the share of updates that were clipped, and their median norm",
)
NOT_AGAIN = (
    "the noise is the operating system's and is kept nowhere: this run cannot be "
    "repeated bit for bit, and a resumed one goes on with its budget, not its noise"
)


class Privacy:
    """Pays for the rounds of one run.

    Parameters
    ----------
    strategy : Algorithm

    Attributes
    ----------
    budget : PrivacyBudget
    leaves_out : bool
        Whether clients say nothing of their samples beside their updates.
    rate : float
        Chance of each client to be asked, 0 where it is not drawn in secret.

    Raises
    ------
    SettingsError
        If the strategy cannot be private, or no round can be paid for.
    """

    def __init__(self, strategy: Algorithm) -> None:
        rules = strategy.settings.privacy
        if why := strategy.not_private():
            raise SettingsError(
                f"privacy = {rules.privacy!r} is not allowed with strategy "
                f"{strategy.name!r}: {why}"
            )
        self._strategy, self._rules = strategy, rules
        self.leaves_out, self.rate = rules.leaves_out, rules.sampling_rate
        self.budget = PrivacyBudget(rules)
        self._folder: RunFolder | None = None

    @property
    def not_covered(self) -> list[str]:
        """What of the run epsilon says nothing about."""
        return [*ALWAYS_OPEN, *(() if self.leaves_out else IN_REPORTS)]

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of it."""
        return {
            "covered": COVERED,
            "not_covered": self.not_covered,
            "adjacent": "runs in which one client's updates are zeros",
            "repeatable": NOT_AGAIN,
        }

    def attach(self, folder: RunFolder, state: Mapping[str, Any]) -> None:
        """Keep charges in a run's folder; go on from those that are there."""
        self._folder = folder
        self.budget.restore(folder.charges(), state)
        logger.info("privacy: epsilon covers %s", COVERED)
        logger.warning("privacy: not covered: %s", "; ".join(self.not_covered))

    def is_drawn(self) -> bool:
        """Return whether one client is asked in one round: a secret coin."""
        return secrets.randbelow(2**53) < self.rate * 2**53

    def open(self, orders: Sequence[SentOrder]) -> "PrivateRound":
        """Fix what a round is of; ``orders`` are of all for whom something is planned.

        Raises
        ------
        RunError
            If it may not be: the budget is spent.
        """
        if why := self.budget.exhausted():
            raise RunError(why)
        sums = self._strategy.sums
        if not isinstance(sums, PrivateSums):
            raise RunError(f"strategy {self._strategy.name!r} sums without noise")
        holders: Counter[str] = Counter()
        sizes: dict[str, int] = {}
        for sent in orders:
            holders.update(sent.order.returned_parts())
            sizes |= sent.sizes
        chance = self.rate or 1.0
        sums.expect(sizes, {part: n * chance for part, n in holders.items()})
        return PrivateRound(self, sums, orders)

    def charge(self, server_round: int) -> None:
        """Pay for the release that follows, on the disk first."""
        line = self.budget.charge()
        if self._folder is not None:
            self._folder.charge({"round": server_round, **line})

    def record(self) -> dict[str, Any]:
        """Return what a round's record says of the budget."""
        rules = self._rules
        return {
            "epsilon": self.budget.epsilon,
            "delta": rules.delta,
            "releases": self.budget.spent.total(),
            "noise_multiplier": rules.noise_multiplier,
            "clip": rules.privacy_clip,
            "sampling_rate": rules.sampling_rate,
        }


class PrivateRound:
    """One round: what was planned, and what may be told of it.

    Parameters
    ----------
    privacy : Privacy
    sums : PrivateSums
    orders : sequence of SentOrder
        Of all for whom something is planned, whether asked or not.
    """

    def __init__(
        self, privacy: Privacy, sums: PrivateSums, orders: Sequence[SentOrder]
    ) -> None:
        self._privacy, self._sums, self._orders = privacy, sums, orders
        self.leaves_out = privacy.leaves_out
        self.is_drawn = privacy.rate > 0

    def heard(self, report: TrainReport) -> TrainReport:
        """Return what the server takes in of a report, whatever is in it."""
        return without_samples(report) if self.leaves_out else report

    def charge(self, server_round: int) -> None:
        """Pay for the release that follows."""
        self._privacy.charge(server_round)

    def lessons(self, replies: Sequence[Reply]) -> Sequence[Reply]:
        """Return what the strategy learns from.

        Where clients say nothing of their samples, that is what was planned, as if all
        had answered: nothing then hangs on what anybody sent, or on who was asked.
        """
        if not self.leaves_out:
            return replies
        planned = [sent for sent in self._orders if sent.order.train]
        planned.sort(key=lambda sent: sent.client.row)
        return [
            Reply(client=sent.client.row, order=sent.order, report=_silent(sent))
            for sent in planned
        ]

    def used(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what every expert's use counts for, shape (E,).

        Samples routed to it; where clients do not say that, who was planned to hold it.
        """
        if not self.leaves_out:
            return samples
        planned = np.zeros_like(samples)
        for sent in self._orders:
            planned[sent.order.experts] += 1
        return planned

    def record(self) -> dict[str, Any]:
        """Return what the record says: the budget, and how much was clipped if told."""
        told: dict[str, Any] = {"share_clipped": None, "median_norm": None}
        if not self.leaves_out and (norms := self._sums.norms):
            most = self._privacy.record()["clip"]
            # Who is above C sends C, less what rounding could add.
            clipped = sum(norm >= most * (1 - 2.0**-9) for norm in norms)
            told["share_clipped"] = clipped / len(norms)
            told["median_norm"] = statistics.median(norms)
        return {**self._privacy.record(), **told}


def _silent(sent: SentOrder) -> TrainReport:
    """Return the report of a client that says nothing of its samples."""
    nothing = [0.0] * len(sent.order.experts)
    return TrainReport(
        server_round=sent.order.server_round,
        client=sent.client.name,
        code_hash=sent.client.profile.code_hash,
        num_examples=1,
        expert_samples=[0] * len(nothing),
        expert_accuracy=nothing,
        expert_loss=nothing,
    )
