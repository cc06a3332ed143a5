"""What this device answers about the frozen base of a run: whether it has it.

Where it looks and what it keeps is in ``client_app.kept.base_weights``.
"""

from typing import Any

from flwr.app import Context

from client_app.kept.base_weights import find_base, kept_bytes, take_piece
from client_app.kept.store import open_bases
from client_app.session import Session
from common import wire
from common.moe import ModelSpec
from common.parts import BASE
from common.wire import BaseKept, BasePiece, MissingParts, TrainOrder


def base_fields(
    session: Session, context: Context, base: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what a query's answer says of a base, and what to warn of."""
    if not base:
        return {}, []
    spec = session.spec.with_base(base)
    store = open_bases(context, session.state_dir)
    found = find_base(store, spec, session.settings.model.pretrained)
    kept = 0 if found else kept_bytes(store, base)
    return {"has_base": found, "base_kept": kept}, store.warnings


def lacked_base(
    session: Session, context: Context, order: TrainOrder, spec: ModelSpec
) -> MissingParts | None:
    """Make the base of an order usable; return the answer if it is not here."""
    if not spec.base:
        return None
    store = open_bases(context, session.state_dir)
    if find_base(store, spec, session.settings.model.pretrained):
        return None
    return MissingParts(
        server_round=order.server_round,
        client=session.client,
        parts=[BASE],
        base_kept=kept_bytes(store, spec.base),
    )


def keep_piece(
    session: Session, context: Context, piece: BasePiece, data: memoryview
) -> BaseKept:
    """Keep a piece of a base; return the answer."""
    store = open_bases(context, session.state_dir)
    kept, problem = take_piece(store, piece, data)
    return wire.BaseKept(
        client=session.client, base=piece.base, kept=kept, problem=problem
    )
