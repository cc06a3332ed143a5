"""How the server's predictor is measured on devices: the order, and what they answer.

The order is that of a round without training: the parts of the model travel beside it,
and it says what the predictor needs besides. The answer is counts, nothing else.
"""

from typing import Annotated, Literal

from flwr.app import RecordDict
from pydantic import Field

from common.class_counts import ClassCounts, most_counts
from common.wire.order import TrainOrder
from common.wire.payloads import (
    ClientName,
    Count,
    Digest,
    Finite,
    Payload,
    Seconds,
    Share,
    WireError,
)
from common.wire.records import ORDER, REPORT, SCALAR_BYTES, is_order, reported
from common.wire.replies import Counts

PREDICTOR = "predictor"


class MeasureOrder(TrainOrder):
    """What a client is asked to measure on its held-out samples.

    Attributes
    ----------
    predictor : {"usage", "server-gate", "gate", "groups"}
        How the experts' answers are joined (:mod:`common.moe.described`).
    weights : list of float
        Share of each expert, or of each group of them; empty with the model's own gate.
    server_gate : list of float
        The gate of the server's own, one vector; empty without.
    """

    train: bool = False
    evaluate: bool = True
    predictor: Literal["usage", "server-gate", "gate", "groups"]
    weights: Annotated[list[Share], Field(max_length=10**6)] = []
    server_gate: list[Finite] = []


class MeasureReport(Payload):
    """What the server's predictor answered to a client's held-out samples.

    Attributes
    ----------
    counts : list of int
        See :class:`common.class_counts.ClassCounts`.
    seconds_total : float
        Time spent in answering.
    """

    server_round: Count
    client: ClientName
    code_hash: Digest
    counts: Counts
    seconds_total: Seconds = 0.0


def decode_measure_order(content: RecordDict) -> MeasureOrder | None:
    """Read the order; None if the message asks for something else.

    Raises
    ------
    WireError
        If it is malformed.
    """
    if not is_order(content) or PREDICTOR not in content.config_records[ORDER]:
        return None
    return MeasureOrder.from_record(content.config_records[ORDER])


def encode_measure_report(report: MeasureReport) -> RecordDict:
    """Build the content of the answer."""
    return RecordDict({REPORT: report.to_record()})


def decode_measure_report(content: RecordDict) -> MeasureReport:
    """Read the answer; raises WireError if it is malformed."""
    return MeasureReport.from_record(reported(content))


def most_measure_bytes(classes: int) -> int:
    """Return the most bytes a correct answer has."""
    return SCALAR_BYTES + 10 * most_counts(classes)


def measured_counts(
    report: MeasureReport, server_round: int, num_classes: int, *, private: bool
) -> ClassCounts:
    """Return what a client counted.

    Parameters
    ----------
    server_round : int
        In which it was asked.
    private : bool
        Whether classes are not to be told apart.

    Raises
    ------
    WireError
        If it is of another round, or these are no counts of so many classes.
    """
    if report.server_round != server_round:
        raise WireError(f"reply is for round {report.server_round}, not {server_round}")
    try:
        counts = ClassCounts.read(report.counts, num_classes)
    except ValueError as error:
        raise WireError(f"counts: {error}") from None
    if counts.by_class == private:
        raise WireError(
            "counts by class, against private-counts"
            if private
            else "counts do not tell classes apart"
        )
    return counts
