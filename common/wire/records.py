"""Orders and reports as Flower records and back; the only place that names record keys.

A message carries one ArrayRecord with one flat vector per part (``extractor``,
``expert.3``, ...) and one record of scalars. Arrays that arrive are untrusted bytes.
"""

import re
from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from common.moe.model import Vector
from common.wire.payloads import QueryReply, TrainOrder, TrainReport, WireError

# Flower's own strategies look for exactly one ArrayRecord and one MetricRecord.
ARRAYS, ORDER, REPORT, METRICS = "arrays", "order", "report", "metrics"
NUM_EXAMPLES, TRAIN_LOSS = "num-examples", "train-loss"


def pack_array(vector: Vector) -> Array:
    """Wrap one part; do it once a round and share the object between messages."""
    return Array(vector)


def encode_order(order: TrainOrder, arrays: Mapping[str, Array]) -> RecordDict:
    """Build the content of one train message from an order and its packed parts."""
    return RecordDict({ARRAYS: ArrayRecord(dict(arrays)), ORDER: order.to_record()})


def is_order(content: RecordDict) -> bool:
    """Whether a message is ours; Flower's own strategies send no order record."""
    return ORDER in content.config_records


def decode_order(content: RecordDict) -> tuple[TrainOrder, dict[str, Vector]]:
    """Read a train message on the device; raises WireError if it is malformed."""
    if not is_order(content):
        raise WireError("the message carries no order record")
    order = TrainOrder.from_record(content.config_records[ORDER])
    return order, decode_arrays(content)


def encode_report(report: TrainReport, deltas: Mapping[str, Vector]) -> RecordDict:
    """Build the content of a train reply."""
    metrics: dict[str, int | float | list[int] | list[float]] = {
        NUM_EXAMPLES: report.num_examples
    }
    return RecordDict(
        {
            ARRAYS: ArrayRecord({name: Array(value) for name, value in deltas.items()}),
            METRICS: MetricRecord(metrics),
            REPORT: report.to_record(),
        }
    )


def decode_report(content: RecordDict) -> tuple[TrainReport, dict[str, Vector]]:
    """Read a train reply on the server; raises WireError if it is malformed."""
    if REPORT not in content.config_records:
        raise WireError("the reply carries no report record")
    report = TrainReport.from_record(content.config_records[REPORT])
    return report, decode_arrays(content)


def encode_query_reply(reply: QueryReply) -> RecordDict:
    """Build the content of a query reply."""
    return RecordDict({REPORT: reply.to_record()})


def decode_query_reply(content: RecordDict) -> QueryReply:
    """Read a query reply; raises WireError if it is malformed."""
    if REPORT not in content.config_records:
        raise WireError("the reply carries no report record")
    return QueryReply.from_record(content.config_records[REPORT])


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


# What numpy.save writes before a flat little-endian float vector, any version of
# NumPy. Matched by hand because numpy.load evaluates the header of untrusted bytes, and
# a malformed one raises from deep inside Python's tokenizer.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"(\{'descr': '<f([48])', 'fortran_order': False, "
    rb"'shape': \((\d{1,12}),\), \} *\n)",
    re.DOTALL,
)


def _flat_vector(name: str, array: Array, dtypes: Mapping[str, int]) -> Vector:
    if array.dtype not in dtypes or len(array.shape) != 1:
        raise WireError(
            f"array {name!r} is {array.dtype}{list(array.shape)}, expected a flat "
            "float32 vector"
        )
    header = _NPY.match(array.data)
    if header is None or array.stype != "numpy.ndarray":
        raise WireError(f"array {name!r} cannot be read: no flat float32 .npy data")
    length = int.from_bytes(header[1], "little")
    width, size = int(header[3]), int(header[4])
    values = memoryview(array.data)[header.end() :]
    if (
        length != len(header[2])
        or width != dtypes[array.dtype]
        or len(values) != width * size
        or array.shape != (size,)
    ):
        raise WireError(f"array {name!r} cannot be read: it is not what it says it is")
    return np.frombuffer(values, dtype=f"<f{width}").astype(np.float32)


def decode_arrays(
    content: RecordDict, *, from_flower: bool = False
) -> dict[str, Vector]:
    """Return the part vectors of a message.

    Parameters
    ----------
    from_flower : bool
        Whether float64 is rounded instead of refused: several of Flower's own
        strategies send what they computed in it.

    Raises
    ------
    WireError
        If an array is not a flat float32 vector.
    """
    vectors: dict[str, Vector] = {}
    dtypes = {"float32": 4, "float64": 8} if from_flower else {"float32": 4}
    for record in content.array_records.values():
        for name, array in record.items():
            vectors[name] = _flat_vector(name, array, dtypes)
    return vectors


def message_bytes(message: Message) -> int:
    """Return the payload bytes of a message: its arrays plus its scalar records.

    Counted from the message itself; Flower's envelope (ids, signatures) is not in it.
    """
    if not message.has_content():
        return 0
    total = 0
    for record in message.content.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        else:
            total += len(record.deflate())
    return total
