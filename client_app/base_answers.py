"""What this device answers about the frozen base of a run: whether it has it.

Where it looks and what it keeps is in ``client_app.kept.base_weights``.
"""

from typing import Any

from client_app.kept.base_weights import find_base, kept_bytes, take_piece
from client_app.session import Session
from client_app.transfer import PartsLackedError
from common import wire
from common.moe import ModelSpec
from common.parts import BASE
from common.wire import BaseKept, BasePiece


def base_fields(session: Session, base: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return what a query's answer says of a base, and what to warn of."""
    if not base:
        return {}, []
    spec = session.spec.with_base(base)
    store = session.home.bases()
    found = find_base(store, spec, session.settings.model.pretrained)
    kept = 0 if found else kept_bytes(store, base)
    return {"has_base": found, "base_kept": kept}, store.warnings


def need_base(session: Session, spec: ModelSpec) -> None:
    """Make the base of a model usable, if it has one.

    Raises
    ------
    PartsLackedError
        If it is not here.
    """
    if not spec.base:
        return
    store = session.home.bases()
    if not find_base(store, spec, session.settings.model.pretrained):
        raise PartsLackedError([BASE], base_kept=kept_bytes(store, spec.base))


def keep_piece(session: Session, piece: BasePiece, data: memoryview) -> BaseKept:
    """Keep a piece of a base; return the answer."""
    store = session.home.bases()
    kept, problem = take_piece(store, piece, data)
    return wire.BaseKept(
        client=session.client, base=piece.base, kept=kept, problem=problem
    )
