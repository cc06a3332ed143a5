"""How a frozen base reaches a device that has it nowhere: piece by piece.

Every piece is a message of its own (``query.base``), and the answer says how much of
the base the device keeps by then: after a cut line, a killed device or another round it
goes on from there. Flower stores a message as a whole, so a piece is what one cut can
cost.
"""

from typing import Annotated

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from pydantic import AfterValidator, Field

from common.parts import BASE
from common.text import one_line
from common.wire.arrays import flat
from common.wire.payloads import ClientName, Count, Payload, Version, WireError
from common.wire.records import ARRAYS, MISSING, arrays_of

PIECE = 16 << 20
"""Bytes of a piece; the last one is what is left."""

PIECE_MESSAGE = "query.base"
"""Type of the message that carries one."""

_PIECE, _KEPT = "base-piece", "base-kept"


class BasePiece(Payload):
    """Which bytes of which base a message carries.

    Attributes
    ----------
    base : str
        Version (:func:`common.moe.bases.content_version`).
    start, total : int
        Where the piece begins, and bytes of the whole.
    """

    base: Version
    start: Count
    total: Annotated[Count, Field(ge=1)]


class BaseKept(Payload):
    """What a device has of a base after a piece.

    Attributes
    ----------
    kept : int
        Bytes from the first on, up to ``total``: then it has the base, and has verified
        what came.
    problem : str
        Why it is not more, "" for no reason.
    """

    client: ClientName
    base: Version
    kept: Count
    problem: Annotated[str, AfterValidator(one_line)] = ""


def encode_piece(piece: BasePiece, data: Array) -> RecordDict:
    """Build the content of a message with a piece, its bytes a flat uint8 array."""
    return RecordDict({ARRAYS: ArrayRecord({BASE: data}), _PIECE: piece.to_record()})


def decode_piece(content: RecordDict) -> tuple[BasePiece, memoryview]:
    """Read a piece and its bytes; raises WireError if they are not what it says."""
    record, arrays = content.config_records.get(_PIECE), arrays_of(content)
    if record is None or arrays.keys() != {BASE}:
        raise WireError("the message carries no piece of a base")
    piece = BasePiece.from_record(record)
    data: memoryview = flat(BASE, arrays[BASE], ("uint8",)).data
    if len(data) != min(PIECE, piece.total - piece.start) or piece.start % PIECE:
        raise WireError(
            f"a piece of {len(data)} bytes at {piece.start} of a base of {piece.total}"
        )
    return piece, data


def encode_kept(kept: BaseKept) -> RecordDict:
    """Build the content of the answer to a piece."""
    return RecordDict({_KEPT: kept.to_record()})


def asks_for_more(reply: Message) -> bool:
    """Whether a reply to an order asks for parts, or for more of a base."""
    if reply.has_error():
        return False
    return not reply.content.config_records.keys().isdisjoint({MISSING, _KEPT})


def decode_kept(content: RecordDict) -> BaseKept | None:
    """Read such an answer; None if this is none, WireError if it is malformed."""
    record: ConfigRecord | None = content.config_records.get(_KEPT)
    return None if record is None else BaseKept.from_record(record)
