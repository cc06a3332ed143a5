"""What was measured of the server's predictor after a round, wherever it was.

On the server's own test set (``server_app.rounds.evaluation``), or by devices on what
they hold out (``server_app.rounds.fleet_evaluation``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from flwr.app import MetricRecord

from common.class_counts import ClassCounts

SERVER, FLEET, COUNTS = "server_global", "fleet", "class_counts"
"""Keys of a MetricRecord: the accuracy, and what it is made of."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measures of one round.

    Attributes
    ----------
    metrics : MetricRecord
        ``server_global`` or ``fleet``; empty where nothing was measured.
    counts : ClassCounts or None
        What the accuracy is made of; None of a function that does not say it.
    asked : list of str or None
        The devices that measured it, in a run where devices do; else None.
    nbytes : int
        Bytes sent to them and back.
    """

    metrics: MetricRecord = field(default_factory=MetricRecord)
    counts: ClassCounts | None = None
    asked: list[str] | None = None
    nbytes: int = 0

    @classmethod
    def by_server(cls, metrics: MetricRecord | None, num_classes: int) -> Self:
        """Take over what an ``evaluate_fn`` returned."""
        metrics = metrics or MetricRecord()
        numbers = metrics.get(COUNTS)
        if not isinstance(numbers, list):
            return cls(metrics=metrics)
        found = ClassCounts.read([int(n) for n in numbers], num_classes)
        return cls(metrics=metrics, counts=found)

    @classmethod
    def by_fleet(
        cls, counts: ClassCounts | None, asked: Sequence[str] = (), nbytes: int = 0
    ) -> Self:
        """Take over what devices counted together; None where nobody did."""
        metrics = MetricRecord() if counts is None else metrics_of(FLEET, counts)
        return cls(metrics=metrics, counts=counts, asked=[*asked], nbytes=nbytes)

    def accuracy(self, name: str) -> float | None:
        """Return ``server_global`` or ``fleet``; None where it was not measured."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, int | float) else None


def metrics_of(name: str, counts: ClassCounts) -> MetricRecord:
    """Return counts and their accuracy under its name in Flower's form."""
    accuracy = {} if counts.accuracy is None else {name: counts.accuracy}
    return MetricRecord({**accuracy, COUNTS: counts.numbers.tolist()})
