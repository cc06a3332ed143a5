"""What is measured of a round that is over, and the record that it makes.

The server's predictor is measured by the server (``evaluation``), else by devices
(``fleet_evaluation``), or by nobody; what clients measure of their own models has come
in the train replies.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from common import wire
from common.class_counts import ClassCounts, summed
from common.moe import ModelSpec
from server_app.contract import Algorithm
from server_app.fleet.fleet import Fleet
from server_app.fleet.reasons import named
from server_app.rounds.fleet_evaluation import FleetEvaluation
from server_app.rounds.record import RoundRecord, balance
from server_app.rounds.round import Round
from server_app.transport.mailbox import Mailbox

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]
"""Flower's ``evaluate_fn``: measures the global arrays after a round."""

SERVER, FLEET, COUNTS = "server_global", "fleet", "class_counts"
"""Keys of a MetricRecord: the accuracy, and what it is made of."""
SERVED = "served"
"""Key of the mean accuracy of what each client would be handed."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measures of one round.

    Attributes
    ----------
    metrics : MetricRecord
        ``server_global`` or ``fleet``, and ``served`` where devices differ; empty
        where nothing was measured.
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
        """Return an accuracy by its key; None where it was not measured."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, int | float) else None


def metrics_of(name: str, counts: ClassCounts) -> MetricRecord:
    """Return counts and their accuracy under its name in Flower's form."""
    accuracy = {} if counts.accuracy is None else {name: counts.accuracy}
    return MetricRecord({**accuracy, COUNTS: counts.numbers.tolist()})


class Measuring:
    """Measures what the rounds of one run produce.

    Parameters
    ----------
    strategy : Algorithm
    fleet : Fleet
    mailbox : Mailbox

    Attributes
    ----------
    last_round : int
        The last round of the run is always measured.
    """

    def __init__(self, strategy: Algorithm, fleet: Fleet, mailbox: Mailbox) -> None:
        self.last_round = strategy.settings.rounds.num_rounds
        self._strategy = strategy
        self._every = strategy.settings.rounds.eval_every
        # What devices answer to the test is of their samples as well.
        silent = strategy.settings.privacy.leaves_out
        self.by_devices = bool(strategy.settings.data.task) and not silent
        self._by_fleet = FleetEvaluation(strategy, fleet, mailbox)

    def is_due(self, server_round: int) -> bool:
        """Whether a round is one of those that are measured, ``eval-every``."""
        return server_round % self._every == 0 or server_round == self.last_round

    def __call__(
        self,
        current: Round,
        grid: Grid,
        timeout: float,
        run_name: str,
        evaluate_fn: Evaluate | None,
    ) -> Measured:
        """Return what is measured of the model that a round has produced.

        Devices measure it where the server has nothing to do so with.
        """
        by_fleet = evaluate_fn is None and self.by_devices
        if not self.is_due(current.server_round):
            return Measured.by_fleet(None) if by_fleet else Measured()
        current.finish()
        if evaluate_fn is not None:
            metrics = evaluate_fn(current.server_round, self._strategy.arrays())
            return Measured.by_server(metrics, self._strategy.spec.num_classes)
        if not by_fleet:
            return Measured()
        return Measured.by_fleet(*self._by_fleet(grid, current, run_name, timeout))


def record_of(
    current: Round,
    spec: ModelSpec,
    load_total: NDArray[np.int64],
    measured: Measured,
    late: int,
) -> RoundRecord:
    """Return the line of the run log.

    Parameters
    ----------
    current : Round
        Finished.
    spec : ModelSpec
        Of the global model.
    load_total : ndarray of int, shape (E,)
        How many clients held each expert and replied, summed over all rounds.
    measured : Measured
    late : int
        Replies that came when nobody waited for them any more.
    """
    outcome, solution = current.outcome, current.plan.solution
    load, samples = outcome.load(), outcome.samples()
    by_layer = load_total.reshape(spec.num_layers, -1)
    counts, local = measured.counts, _local_counts(current, spec.num_classes)
    return RoundRecord(
        round=current.server_round,
        merged=outcome.merged,
        server_global=measured.accuracy(SERVER),
        fleet=measured.accuracy(FLEET),
        served=measured.accuracy(SERVED),
        recall=None if counts is None else counts.recall,
        balanced=None if counts is None else counts.balanced,
        confusion=None if counts is None else counts.matrix,
        local_recall=None if local is None else local.recall,
        local_balanced=None if local is None else local.balanced,
        fleet_clients=measured.asked,
        fleet_bytes=measured.nbytes,
        cv_round=balance(load),
        cv_cumulative=balance(load_total),
        cv_samples=balance(samples),
        cv_layers=[balance(each) for each in by_layer],
        load=load.tolist(),
        samples=samples.tolist(),
        seconds=time.perf_counter() - current.started,
        solver=None
        if solution is None
        else {
            "name": solution.solver,
            "status": solution.status,
            "seconds": solution.seconds,
            "objective": solution.objective,
            "bound": solution.bound,
        },
        notes=[
            *current.notes,
            *(f"{named(sorted(who))}: {w}" for w, who in current.warned.items()),
            *(each.cut_note() for each in current.clients.values() if each.cut),
        ],
        rejected=current.rejected,
        refused=len(current.refused),
        late=late,
        ended=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        clients=[current.clients[row] for row in sorted(current.clients)],
        privacy=None if current.private is None else current.private.record(),
    )


def _local_counts(current: Round, num_classes: int) -> ClassCounts | None:
    """Return what all clients' models answered to what each of them holds out."""
    reports = [reply.report for reply in current.outcome.replies]
    found = [wire.local_counts(report, num_classes) for report in reports]
    known = [counts for counts in found if counts is not None]
    # One that does not tell classes apart must not hide those of the others.
    return summed([counts for counts in known if counts.by_class] or known)
