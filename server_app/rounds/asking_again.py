"""What a client is sent that answers an order by asking for more: parts, or a base.

It has lost what it was to have in its cache, or it lacks the frozen base of the model
and is sent that piece by piece, from what it keeps of it on. It may do so a few times,
and as long as the base grows.
"""

import time
from dataclasses import replace

from flwr.app import Message

from common import wire
from common.parts import BASE
from common.wire import PIECE, BaseKept, MissingParts, WireError
from server_app.rounds.orders import SentOrder
from server_app.run_folder.base_file import base_piece


def asked_again(
    message: Message, sent: SentOrder
) -> tuple[SentOrder, list[str]] | None:
    """Return what a client is to be asked now, and notes for the record.

    None where its reply does not ask for more, cannot be believed, or has asked for the
    same too often.
    """
    if wire.message_bytes(message) > sent.largest_report():
        return None
    try:
        if (kept := wire.decode_kept(message.content)) is not None:
            return _with_more_of_the_base(kept, sent)
        if (said := wire.decode_missing(message.content)) is not None:
            return _with_what_it_lacks(said, sent)
    except WireError:
        pass
    return None


def _with_more_of_the_base(
    said: BaseKept, sent: SentOrder
) -> tuple[SentOrder, list[str]] | None:
    client, base = sent.client, sent.order.base
    if (said.client, said.base) != (client.name, base) or client.has_base:
        return None
    total, before = base_piece(said.base, 0)[0].total, client.base_kept
    whole = said.kept == total
    kept = said.kept if whole or (said.kept % PIECE == 0 and said.kept < total) else 0
    client.note_base(kept, whole=whole)
    if kept > before:
        notes = [f"{client.name} was sent the frozen base"] if whole else []
        return replace(sent, sent_at=time.monotonic()), notes
    if said.problem and kept == before:  # it has no room, and will not have it at once
        return None
    again = sent.after_loss()
    return None if again is None else (again, [])


def _with_what_it_lacks(
    said: MissingParts, sent: SentOrder
) -> tuple[SentOrder, list[str]] | None:
    client, order = sent.client, sent.order
    if (said.server_round, said.client) != (order.server_round, client.name):
        return None
    if BASE in said.parts and order.base is not None:
        client.note_base(said.base_kept, whole=False)
        again = sent.after_loss()
        return None if again is None else (again, [f"{client.name} lacked {BASE}"])
    if not order.cached_parts:
        return None
    client.forget_cache()
    missing = [part for part in order.cached_parts if part in said.parts]
    return sent.in_full(), [f"{client.name} lacked {', '.join(missing)}"]
