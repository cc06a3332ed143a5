"""Orders and reports as Flower records and back; the only place that names record keys.

A message carries one ArrayRecord with one flat array per part (``extractor``,
``expert.3``, ...) and one record of scalars. Arrays that arrive are untrusted bytes.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from common.moe.parts import GATE, Layout, Vector
from common.wire.codec import CodecError, Dtype, decode, encode, encoded_size
from common.wire.payloads import Lacks, QueryReply, TrainOrder, TrainReport, WireError

# Flower's own strategies look for exactly one ArrayRecord and one MetricRecord.
ARRAYS, ORDER, REPORT, METRICS = "arrays", "order", "report", "metrics"
LACKS = "lacks"
NUM_EXAMPLES, TRAIN_LOSS = "num-examples", "train-loss"


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How the parts of a message are encoded.

    Attributes
    ----------
    dtype : {"float32", "float16", "int8"}
        Of every part but the gate, which is never quantised.
    layouts : mapping of str to layout
        Of the parts expected; not needed for float32.
    """

    dtype: Dtype = "float32"
    layouts: Mapping[str, Layout] = field(default_factory=dict)

    def dtype_of(self, part: str) -> Dtype:
        """Return the encoding of one part; a part nobody expects is left alone."""
        return self.dtype if part != GATE and part in self.layouts else "float32"

    def nbytes(self, part: str) -> int:
        """Return the bytes of a part as it travels, without the array's header."""
        return encoded_size(self.layouts[part], self.dtype_of(part))


FLOAT32 = Packing()


def pack(
    vectors: Mapping[str, Vector],
    packing: Packing = FLOAT32,
    rng: np.random.Generator | None = None,
) -> dict[str, Array]:
    """Wrap parts for a message; do it once a round and share the objects.

    Parameters
    ----------
    rng : Generator, optional
        Rounds to int8 stochastically; None rounds to the nearest.
    """
    arrays = {}
    for name, vector in vectors.items():
        dtype = packing.dtype_of(name)
        arrays[name] = Array(
            vector
            if dtype == "float32"
            else encode(vector, packing.layouts[name], dtype, rng)
        )
    return arrays


def unpack(
    arrays: Mapping[str, Array], packing: Packing = FLOAT32
) -> dict[str, Vector]:
    """Return the vectors :func:`pack` was given, as far as the encoding keeps them.

    Vectors in float32 are read-only views of the message: nothing is copied.

    Raises
    ------
    WireError
        If an array is not what the packing says.
    """
    vectors: dict[str, Vector] = {}
    for name, array in arrays.items():
        dtype = packing.dtype_of(name)
        if dtype == "float32":
            values = _flat(name, array, ("float32",))
            vectors[name] = values.astype(np.float32, copy=False)
            continue
        try:
            data = _flat(name, array, ("uint8",))
            vectors[name] = decode(data, packing.layouts[name], dtype)
        except CodecError as error:
            raise WireError(f"array {name!r} cannot be read: {error}") from None
    return vectors


def version(array: Array) -> str:
    """Return which values a packed part has: 16 hexadecimal digits of their hash."""
    return hashlib.sha256(array.data).hexdigest()[:16]


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
    if REPORT not in content.config_records:
        raise WireError("the reply carries no report record")
    report = TrainReport.from_record(content.config_records[REPORT])
    return report, unpack(arrays_of(content), packing)


def encode_lacks(lacks: Lacks) -> RecordDict:
    """Build the content of a reply that asks for what the cache has lost."""
    return RecordDict({LACKS: lacks.to_record()})


def decode_lacks(content: RecordDict) -> Lacks | None:
    """Read such a reply; None if this is none, WireError if it is malformed."""
    record = content.config_records.get(LACKS)
    return None if record is None else Lacks.from_record(record)


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


# What numpy.save writes before a flat little-endian vector, any version of NumPy.
# Matched by hand because numpy.load evaluates the header of untrusted bytes, and a
# malformed one raises from deep inside Python's tokenizer.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"(\{'descr': '(<f4|<f8|\|u1)', 'fortran_order': False, "
    rb"'shape': \((\d{1,12}),\), \} *\n)",
    re.DOTALL,
)
_DESCR = {"float32": "<f4", "float64": "<f8", "uint8": "|u1"}


def _flat(name: str, array: Array, dtypes: tuple[str, ...]) -> NDArray[Any]:
    """Return the read-only flat vector an array says it is."""
    if array.dtype not in dtypes or len(array.shape) != 1:
        raise WireError(
            f"array {name!r} is {array.dtype}{list(array.shape)}, expected a flat "
            f"{dtypes[0]} vector"
        )
    header = _NPY.match(array.data)
    if header is None or array.stype != "numpy.ndarray":
        raise WireError(f"array {name!r} cannot be read: no flat {dtypes[0]} .npy data")
    descr, size = header[3].decode(), int(header[4])
    values = memoryview(array.data)[header.end() :]
    if (
        int.from_bytes(header[1], "little") != len(header[2])
        or descr != _DESCR[array.dtype]
        or len(values) != np.dtype(descr).itemsize * size
        or array.shape != (size,)
    ):
        raise WireError(f"array {name!r} cannot be read: it is not what it says it is")
    return np.frombuffer(values, dtype=descr)


def decode_flower_arrays(content: RecordDict) -> dict[str, Vector]:
    """Return the weights a message of Flower's own strategies carries.

    Several of them send what they computed in float64; it is rounded.

    Raises
    ------
    WireError
        If an array is not a flat vector of floats.
    """
    return {
        name: _flat(name, array, ("float32", "float64")).astype(np.float32)
        for name, array in arrays_of(content).items()
    }


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
