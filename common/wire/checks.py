"""Whether a reply fits the order it answers; nothing that fails here is merged."""

from collections.abc import Mapping

import numpy as np

from common.class_counts import ClassCounts
from common.parts import Vector, expert_id
from common.wire.order import TrainOrder
from common.wire.payloads import WireError
from common.wire.records import ROOM
from common.wire.replies import TrainReport

ROUNDING = 1e-6
"""By how much two forms of one share may differ."""


def check_report(
    order: TrainOrder,
    report: TrainReport,
    deltas: Mapping[str, Vector],
    sizes: Mapping[str, int],
    *,
    num_layers: int = 1,
    positions: int = 1,
    most_examples: int | None = None,
    most_held_out: int | None = None,
    num_classes: int = 0,
) -> None:
    """Check a reply against the order it answers; nothing that fails is merged.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of every part's vector as it was shipped to this client.
    num_layers : int
        Mixture layers of the model.
    positions : int
        What a sample is routed as, at most: the tokens of a text.
    most_examples, most_held_out : int, optional
        Samples to train on and held out that the client said it has when it was asked
        who it is.
    num_classes : int
        Classes of the task; 0 allows no counts by class.

    Raises
    ------
    WireError
        Wrong round, wrong parts, wrong length, NaN or infinity, or per-expert lists
        and counts that do not fit the order.
    """
    if report.server_round != order.server_round:
        raise WireError(
            f"reply is for round {report.server_round}, not {order.server_round}"
        )
    expected = set(order.returned_parts())
    if set(deltas) != expected:
        extra, missing = set(deltas) - expected, expected - set(deltas)
        strangers = [name for name in extra if expert_id(name) is not None]
        raise WireError(
            f"parts never assigned: {sorted(strangers)}"
            if strangers
            else f"wrong parts: unexpected {sorted(extra)}, missing {sorted(missing)}"
        )
    for name, delta in deltas.items():
        if delta.size != sizes[name]:
            raise WireError(f"{name} has {delta.size} values, expected {sizes[name]}")
        if not np.isfinite(delta).all():
            raise WireError(f"{name} contains NaN or infinity")
    if report.candidate >= order.candidates:
        raise WireError(
            f"candidate is {report.candidate}, of {order.candidates} that were sent"
        )
    _check_lists(order, report, num_layers * order.num_experts)
    if order.train and report.num_examples == 0:
        raise WireError("a training reply must come from at least one example")
    if most_examples is not None and report.num_examples > most_examples:
        raise WireError(
            f"num-examples is {report.num_examples}, but it said that it has "
            f"{most_examples}: it is asked again"
        )
    local_counts(report, num_classes, most_held_out)
    if len(report.holds) > ROOM * (len(sizes) + 1):
        raise WireError(f"holds {len(report.holds)} parts, more than it was ever sent")
    most = report.num_examples * positions * max(1, len(order.experts))
    if sum(report.expert_samples) > most:
        raise WireError(
            f"expert-samples sum to {sum(report.expert_samples)}, at most {most} are "
            "possible"
        )


def _check_lists(order: TrainOrder, report: TrainReport, everyone: int) -> None:
    """Check the lists by expert; ``everyone`` counts the experts of all layers."""
    held = len(order.experts)
    for field in ("expert_samples", "expert_accuracy", "expert_loss"):
        if len(getattr(report, field)) != held:
            name = field.replace("_", "-")
            raise WireError(f"{name} must have one entry per ordered expert")
    for field, entries, asked in (
        ("gate_mass", everyone, order.report_gate),
        ("responsibility", held, order.report_gate),
        ("input_information", everyone, order.report_information),
        ("label_information", everyone, order.report_information),
    ):
        # A strategy that asked relies on it; unasked, it is more than was wanted.
        if len(getattr(report, field)) != (entries if asked and order.train else 0):
            raise WireError(f"{field} must have {entries} entries if asked, else none")


def local_counts(
    report: TrainReport, num_classes: int, most: int | None = None
) -> ClassCounts | None:
    """Return what a report says of its held-out samples; None where it says nothing.

    Raises
    ------
    WireError
        If these are no counts of so many classes, not those of ``client_local``, or of
        more than ``most`` samples.
    """
    if not report.local_counts:
        return None
    try:
        counts = ClassCounts.read(report.local_counts, num_classes)
    except ValueError as error:
        raise WireError(f"local-counts: {error}") from None
    if counts.accuracy is None or report.client_local is None:
        raise WireError("local-counts without a held-out sample or client-local")
    if abs(counts.accuracy - report.client_local) > ROUNDING:
        raise WireError(
            f"client-local is {report.client_local:g}, but by its local-counts "
            f"{counts.accuracy:g}"
        )
    if most is not None and counts.total > most:
        raise WireError(
            f"local-counts are of {counts.total} samples, but it said that it holds "
            f"out {most}: it is asked again"
        )
    return counts
