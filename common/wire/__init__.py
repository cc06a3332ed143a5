"""The contract between server and device.

Nothing here decides anything, and no part named ``gate`` is ever packed unless the
order's gate is shared.
"""

from common.wire.checks import check_report
from common.wire.payloads import (
    PROTOCOL,
    Payload,
    QueryReply,
    TrainOrder,
    TrainReport,
    WireError,
)
from common.wire.records import (
    ARRAYS,
    METRICS,
    NUM_EXAMPLES,
    ORDER,
    REPORT,
    TRAIN_LOSS,
    decode_arrays,
    decode_order,
    decode_query_reply,
    decode_report,
    encode_flower_reply,
    encode_order,
    encode_query_reply,
    encode_report,
    flower_config,
    is_order,
    message_bytes,
    pack_array,
)

__all__ = [
    "ARRAYS",
    "METRICS",
    "NUM_EXAMPLES",
    "ORDER",
    "PROTOCOL",
    "REPORT",
    "TRAIN_LOSS",
    "Payload",
    "QueryReply",
    "TrainOrder",
    "TrainReport",
    "WireError",
    "check_report",
    "decode_arrays",
    "decode_order",
    "decode_query_reply",
    "decode_report",
    "encode_flower_reply",
    "encode_order",
    "encode_query_reply",
    "encode_report",
    "flower_config",
    "is_order",
    "message_bytes",
    "pack_array",
]
