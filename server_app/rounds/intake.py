"""What is accepted: every check that decides whether a reply may be merged.

Contents are checked here and in the wire's :func:`common.wire.check_report`. What fails
is a :class:`WireError` that says why; nothing is written here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from common import wire
from common.moe import Vector, expert_id
from common.wire import TrainReport, WireError
from server_app.contract import Reply
from server_app.merging.bounds import NormBounds
from server_app.rounds.client_round import SAMPLES
from server_app.rounds.orders import SentOrder

FAR = 10.0
"""Times the norm bound beyond which a reply is refused rather than cut down."""


class CacheLostError(WireError):
    """A client has lost parts that it was to have in its cache."""


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What is accepted of one reply.

    Attributes
    ----------
    report : TrainReport
        As the record tells it.
    reply : Reply
        As it is merged: cut down to what it may count for.
    changes : dict of str to float
        RMS change of each part before that, which others are held against: not of idle
        experts.
    cuts : dict of str to float
        What each part was multiplied with, and ``samples``, where they were cut down.
    """

    report: TrainReport
    reply: Reply
    changes: dict[str, float]
    cuts: dict[str, float]


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


def accepted(
    report: TrainReport,
    deltas: Mapping[str, Vector],
    sent: SentOrder,
    max_update: float,
    bounds: NormBounds,
) -> Accepted:
    """Return what is accepted of a reply that could be read.

    Parameters
    ----------
    max_update : float
        Largest RMS change of a part that is accepted.
    bounds : NormBounds
        On what is usual.

    Raises
    ------
    WireError
        If it breaks the contract, or is so far above the usual that nothing of it can
        be trusted.
    """
    report = counted(report, sent)
    check(sent, report, deltas, max_update)
    changed = changes(deltas)
    deltas, cuts = cut_down(deltas, changed, bounds)
    weighed = _weighed(report, sent.most_counted)
    if weighed is not report:
        cuts[SAMPLES] = weighed.num_examples / report.num_examples
    reply = Reply(
        client=sent.client.row, order=sent.order, report=weighed, deltas=deltas
    )
    of_use = {
        part: change
        for part, change in changed.items()
        if (expert := expert_id(part)) is None or reply.samples_of(expert)
    }
    return Accepted(report=report, reply=reply, changes=of_use, cuts=cuts)


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
    if sent.may_grow and _trains_on_more(report, sent):
        report = _scaled_to(report, sent.most_examples or 0)
    if sent.may_grow and _holds_out_more(report, sent):
        report = report.model_copy(update={"local_counts": []})
    return report


def _scaled_to(report: TrainReport, most: int) -> TrainReport:
    """Return a report of ``most`` samples if it is of more, routed as these were."""
    if (samples := report.num_examples) <= most:
        return report
    routed = [count * most // samples for count in report.expert_samples]
    return report.model_copy(update={"num_examples": most, "expert_samples": routed})


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
    for name, change in changes(deltas).items():
        if change > max_update:
            raise WireError(
                f"{name} changed by {change:g} (RMS), max-update is {max_update:g}"
            )


def changes(deltas: Mapping[str, Vector]) -> dict[str, float]:
    """Return the RMS of each part's delta; infinity where that leaves float32."""
    # Finite values whose square leaves float32's range are far too large too.
    with np.errstate(over="ignore"):
        return {
            name: float(np.linalg.norm(delta)) / math.sqrt(max(1, delta.size))
            for name, delta in deltas.items()
        }


def cut_down(
    deltas: Mapping[str, Vector], changed: Mapping[str, float], bounds: NormBounds
) -> tuple[dict[str, Vector], dict[str, float]]:
    """Return deltas with what is far above the usual cut down, and by what factors.

    Raises
    ------
    WireError
        If one is so far above it that nothing of the reply can be trusted.
    """
    cuts = bounds.cuts(changed)
    for part, factor in cuts.items():
        if 1 / factor > FAR * bounds.factor:
            raise WireError(
                f"{part} changed by {1 / factor:.4g} times the median of the last "
                f"rounds, norm-bound is {bounds.factor:g}: more than {FAR:g} times "
                "that is refused"
            )
    scaled = {part: deltas[part] * np.float32(factor) for part, factor in cuts.items()}
    return {**deltas, **scaled}, cuts


def _weighed(report: TrainReport, most: int | None) -> TrainReport:
    """Return a report that counts for no more samples than anybody does."""
    return report if most is None else _scaled_to(report, most)
