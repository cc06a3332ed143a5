"""What is accepted: every check that decides whether a reply may be merged.

Contents are checked here and in the wire's :func:`common.wire.check_report`. What fails
is a :class:`WireError` that says why; nothing is written here.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Message

from common import wire
from common.moe import Vector
from common.wire import TrainReport, WireError
from server_app.rounds.orders import SentOrder


class CacheLostError(WireError):
    """A client has lost parts that it was to have in its cache."""


def read(message: Message, sent: SentOrder) -> tuple[TrainReport, dict[str, Vector]]:
    """Return report and deltas of a reply.

    Raises
    ------
    CacheLostError
        If it has none, because the client has lost its cache.
    WireError
        If it is an error, too large, cannot be read, or is another client's.
    """
    if message.has_error():
        raise WireError(wire.error_of(message))
    size, most = wire.message_bytes(message), sent.largest_reply()
    if size > most:
        raise WireError(f"reply of {size} bytes, at most {most}")
    if (missing := wire.decode_missing(message.content)) is not None:
        raise CacheLostError(f"{', '.join(missing.parts)} missing from its cache")
    if (kept := wire.decode_kept(message.content)) is not None:
        problem = kept.problem or "it gives no reason"
        raise WireError(f"does not keep the frozen base: {problem}")
    report, deltas = wire.decode_report(message.content, sent.upload)
    if report.code_hash != sent.client.profile.code_hash:
        raise WireError(f"runs other code ({report.code_hash}) than it joined with")
    if report.client != sent.client.name:
        raise WireError(f"calls itself {report.client!r}")
    return report, deltas


def claims_more(report: TrainReport, sent: SentOrder) -> bool:
    """Whether a report is of more samples than the client said it has.

    Raises
    ------
    WireError
        If what it says of its held-out samples cannot be read.
    """
    return _trains_on_more(report, sent) or _holds_out_more(report, sent)


def _trains_on_more(report: TrainReport, sent: SentOrder) -> bool:
    most = sent.most_examples
    return most is not None and report.num_examples > most


def _holds_out_more(report: TrainReport, sent: SentOrder) -> bool:
    most, counts = sent.most_held_out, wire.local_counts(report, sent.num_classes)
    return most is not None and counts is not None and counts.total > most


def counted(report: TrainReport, sent: SentOrder) -> TrainReport:
    """Return a report that counts for no more samples than the client said it has.

    Its own data may have grown since it was asked. It has trained on all of them, and
    nothing is wrong with that; but a weight must not be claimed in a reply alone. It is
    asked again, and from then on counts in full.
    """
    changes: dict[str, Any] = {}
    if sent.may_grow and _trains_on_more(report, sent):
        most, samples = sent.most_examples or 0, report.num_examples
        routed = [count * most // samples for count in report.expert_samples]
        changes |= {"num_examples": most, "expert_samples": routed}
    if sent.may_grow and _holds_out_more(report, sent):
        changes["local_counts"] = []
    return report.model_copy(update=changes) if changes else report


def check(
    sent: SentOrder,
    report: TrainReport,
    deltas: Mapping[str, Vector],
    max_update: float,
) -> None:
    """Check a reply against its order.

    Parameters
    ----------
    max_update : float
        Largest RMS change of a part that is accepted.

    Raises
    ------
    WireError
        If it breaks the contract.
    """
    wire.check_report(
        sent.order,
        report,
        deltas,
        sent.sizes,
        num_layers=sent.num_layers,
        positions=sent.positions,
        most_examples=sent.most_examples,
        most_held_out=sent.most_held_out,
        num_classes=sent.num_classes,
    )
    for name, delta in deltas.items():
        # Finite values whose square leaves float32's range are far too large too.
        with np.errstate(over="ignore"):
            change = float(np.linalg.norm(delta)) / math.sqrt(max(1, delta.size))
        if change > max_update:
            raise WireError(
                f"{name} changed by {change:g} (RMS), max-update is {max_update:g}"
            )
