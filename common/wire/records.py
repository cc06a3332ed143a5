"""Orders and reports as Flower records and back; the only place that names record keys.

A message carries one ArrayRecord with one flat array per part (``extractor``,
``expert.3``, ...) and one record of scalars. Arrays that arrive are untrusted bytes.
"""

import re
from collections.abc import Mapping

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)

from common.class_counts import most_counts
from common.parts import Vector
from common.text import first_line
from common.wire.arrays import FLOAT32, HEADER_BYTES, Packing, flat, unpack
from common.wire.order import TrainOrder
from common.wire.payloads import WireError
from common.wire.replies import (
    MissingParts,
    Query,
    QueryReply,
    Refusal,
    TrainReport,
)

# Flower's own strategies look for exactly one ArrayRecord and one MetricRecord.
ARRAYS, ORDER, REPORT, METRICS = "arrays", "order", "report", "metrics"
MISSING, QUERY, REFUSAL = "missing", "query", "refusal"
NUM_EXAMPLES, TRAIN_LOSS = "num-examples", "train-loss"

SCALAR_BYTES = 16 * 1024
"""What a reply's scalars and keys take at most, lists left out; twice what they do."""

ROOM = 4
"""How many parts a client keeps for each part it was last sent."""


def arrays_of(content: RecordDict) -> dict[str, Array]:
    """Return the packed parts of a message."""
    return {
        name: array
        for record in content.array_records.values()
        for name, array in record.items()
    }


def encode_order(order: TrainOrder, arrays: Mapping[str, Array]) -> RecordDict:
    """Build the content of one train message from an order and its packed parts."""
    return RecordDict({ARRAYS: ArrayRecord(dict(arrays)), ORDER: order.to_record()})


def is_order(content: RecordDict) -> bool:
    """Whether a message is ours; Flower's own strategies send no order record."""
    return ORDER in content.config_records


def decode_order(content: RecordDict) -> TrainOrder:
    """Read the order of a train message; raises WireError if it is malformed."""
    if not is_order(content):
        raise WireError("the message carries no order record")
    return TrainOrder.from_record(content.config_records[ORDER])


def encode_report(report: TrainReport, arrays: Mapping[str, Array]) -> RecordDict:
    """Build the content of a train reply from a report and its packed deltas."""
    metrics: dict[str, int | float | list[int] | list[float]] = {
        NUM_EXAMPLES: report.num_examples
    }
    return RecordDict(
        {
            ARRAYS: ArrayRecord(dict(arrays)),
            METRICS: MetricRecord(metrics),
            REPORT: report.to_record(),
        }
    )


def decode_report(
    content: RecordDict, packing: Packing = FLOAT32
) -> tuple[TrainReport, dict[str, Vector]]:
    """Read a train reply on the server; raises WireError if it is malformed."""
    record = reported(content, ARRAYS, METRICS)
    return TrainReport.from_record(record), unpack(arrays_of(content), packing)


def most_report_bytes(held: int, everyone: int, parts: int, classes: int) -> int:
    """Return the most bytes a correct reply has, beside its vectors.

    Parameters
    ----------
    held, everyone : int
        Experts that were ordered, and experts of all layers.
    parts : int
        Parts of the model that was ordered.
    classes : int
        Classes of the task.
    """
    # A count or a share takes up to ten bytes, a version in ``holds`` twenty.
    numbers = 4 * held + 3 * everyone + most_counts(classes)
    versions = ROOM * (parts + 1)
    return SCALAR_BYTES + 10 * numbers + 20 * versions + HEADER_BYTES * parts


def reported(content: RecordDict, *others: str) -> ConfigRecord:
    """Return the report record of a reply that has no records but these."""
    if REPORT not in content.config_records:
        raise WireError("the reply carries no report record")
    if unknown := sorted(content.keys() - {REPORT, *others}):
        raise WireError(f"unknown records: {unknown[0]!r:.60}, {len(unknown)} in all")
    return content.config_records[REPORT]


def encode_missing(missing: MissingParts) -> RecordDict:
    """Build the content of a reply that asks for what the cache has lost."""
    return RecordDict({MISSING: missing.to_record()})


def decode_missing(content: RecordDict) -> MissingParts | None:
    """Read such a reply; None if this is none, WireError if it is malformed."""
    record = content.config_records.get(MISSING)
    return None if record is None else MissingParts.from_record(record)


def encode_query(query: Query) -> RecordDict:
    """Build the content of a query."""
    return RecordDict({QUERY: query.to_record()})


def decode_query(content: RecordDict) -> Query | None:
    """Read a query; None if it says nothing, WireError if it is malformed."""
    record = content.config_records.get(QUERY)
    return None if record is None else Query.from_record(record)


def encode_query_reply(reply: QueryReply) -> RecordDict:
    """Build the content of a query reply."""
    return RecordDict({REPORT: reply.to_record()})


def encode_refusal(refusal: Refusal) -> RecordDict:
    """Build the content of an answer to a query by who cannot take part."""
    return RecordDict({REFUSAL: refusal.to_record()})


def decode_refusal(content: RecordDict) -> Refusal | None:
    """Read such an answer; None if this is none, WireError if it is malformed."""
    record = content.config_records.get(REFUSAL)
    return None if record is None else Refusal.from_record(record)


def most_query_bytes(classes: int, channels: int, projections: int = 0) -> int:
    """Return the most bytes a correct reply to a query has."""
    statistic = projections * (classes + projections) + classes if projections else 0
    return SCALAR_BYTES + 10 * (classes + 5 * channels + statistic)


def decode_query_reply(content: RecordDict, most: int = SCALAR_BYTES) -> QueryReply:
    """Read a query reply; raises WireError if it is malformed or too large."""
    if (size := content_bytes(content)) > most:
        raise WireError(f"query reply of {size} bytes, at most {most}")
    return QueryReply.from_record(reported(content))


def encode_flower_reply(
    vectors: Mapping[str, Vector], metrics: dict[str, int | float]
) -> RecordDict:
    """Build the reply Flower's own strategies expect: full weights and metrics."""
    content = RecordDict({METRICS: MetricRecord({**metrics})})
    if vectors:
        content[ARRAYS] = ArrayRecord({k: Array(v) for k, v in vectors.items()})
    return content


def flower_config(content: RecordDict) -> tuple[int, float]:
    """Return the round and FedProx's mu from a message of Flower's own strategies."""
    values: dict[str, object] = {}
    for record in content.config_records.values():
        values |= record
    server_round, mu = values.get("server-round", 0), values.get("proximal-mu", 0.0)
    if not isinstance(server_round, int) or not isinstance(mu, int | float):
        raise WireError("server-round and proximal-mu must be numbers")
    return server_round, float(mu)


def decode_flower_arrays(content: RecordDict) -> dict[str, Vector]:
    """Return the weights a message of Flower's own strategies carries.

    Several of them send what they computed in float64; it is rounded.

    Raises
    ------
    WireError
        If an array is not a flat vector of floats.
    """
    return {
        name: flat(name, array, ("float32", "float64")).astype(np.float32)
        for name, array in arrays_of(content).items()
    }


def message_bytes(message: Message) -> int:
    """Return the payload bytes of a message: its arrays plus its scalar records.

    Counted from the message itself; Flower's envelope (ids, signatures) is not in it.
    """
    return content_bytes(message.content) if message.has_content() else 0


def content_bytes(content: RecordDict) -> int:
    """Return the payload bytes of a message's content.

    Raises
    ------
    WireError
        If a text in it is no text: within a process nothing has encoded it yet.
    """
    total = 0
    for record in content.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        else:
            try:
                total += len(record.deflate())
            except UnicodeEncodeError:
                raise WireError("a text with half a character") from None
    return total


# What Flower writes of an exception: its class, then its message; Ray's message is a
# traceback that ends in the one of the ClientApp.
_RAISED = re.compile(r"<class '(?:\w+\.)*([^']+)'>:<'(.*)'>", re.DOTALL)
_IN_RAY = "Exception ClientAppException occurred. Message: "
_LONGEST_TRACEBACK = 100_000


def error_of(message: Message) -> str:
    """Return what an error reply says, in one line and without its traceback."""
    reason = (message.error.reason or "")[:_LONGEST_TRACEBACK]
    if raised := _RAISED.fullmatch(reason.strip()):
        kind, said = raised.groups()
        before, found, last = said.rpartition(_IN_RAY)
        reason = last if found else f"{kind}: {before or said}"
    return f"error {message.error.code}: {first_line(reason)}"
