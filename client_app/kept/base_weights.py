"""The frozen base a model is built around: where this device has it, and fetching it.

A base is known by its content, so it does not matter whose directory it comes from: it
may be in this process already, among those this device was sent, or in the directory of
the checkpoint that its owner gave it. Only one that is nowhere is sent, in pieces
(:mod:`common.wire.base_pieces`), and kept as those pieces under
``<state-dir>/bases/``, whatever run it was for: each is written atomically, and what is
there when the line is cut or the power goes is not sent again. ``ROOM`` bases are kept.
"""

import re
from dataclasses import dataclass

from client_app.kept.store import Store
from common.base_source import load_local_base
from common.errors import SettingsError
from common.moe import ModelSpec
from common.moe.bases import (
    ROOM,
    Base,
    content_version,
    fill,
    freeze,
    install,
    is_installed,
    read,
)
from common.wire import PIECE, BasePiece

_NAME = re.compile(r"(\d{6})-([0-9a-f]{16})-(\d{1,15})-(\d{15})\.piece")


@dataclass(frozen=True, order=True)
class _Kept:
    """One piece in the store; sorted by age of its base, then by place."""

    number: int
    version: str
    total: int
    start: int

    @property
    def name(self) -> str:
        return f"{self.number:06d}-{self.version}-{self.total}-{self.start:015d}.piece"


def find_base(store: Store, spec: ModelSpec, checkpoint: str = "") -> bool:
    """Make the base of a spec usable in this process; False if it is not here.

    Parameters
    ----------
    store : Store
        Of this device, see :meth:`client_app.kept.home.Home.bases`.
    spec : ModelSpec
        ``base`` is the version wanted.
    checkpoint : str
        Directory or hub id of what its owner gave it.
    """
    if is_installed(spec.base):
        return True
    found = _sent(store, spec) or _given(store, spec, checkpoint)
    if found is not None:
        install(found)
    return found is not None


def kept_bytes(store: Store, version: str) -> int:
    """Return how much of a base is here, from its first byte on."""
    end = 0
    for piece in _pieces(store):
        if piece.version == version and piece.start == end:
            end = min(end + PIECE, piece.total)
    return end


def take_piece(store: Store, piece: BasePiece, data: memoryview) -> tuple[int, str]:
    """Keep a piece; return how much of the base is here then, and what went wrong.

    One that does not begin where the others end is not kept. With the last one the base
    is verified; if it is not the one that was announced, all of it goes.
    """
    there = kept_bytes(store, piece.base)
    if piece.start != there or there == piece.total:
        return there, ""
    others = _pieces(store)
    mine = [each for each in others if each.version == piece.base]
    versions = list(dict.fromkeys(each.version for each in others))
    versions = [version for version in versions if version != piece.base]
    _forget(store, versions[: max(0, len(versions) - ROOM + 1)])
    number = mine[0].number if mine else 1 + max((o.number for o in others), default=0)
    kept = _Kept(number, piece.base, piece.total, piece.start)
    if not store.write(kept.name, bytes(data)):
        return there, store.warnings[-1]
    there += len(data)
    if there < piece.total:
        return there, ""
    try:
        if content_version(read(_joined(store, piece.base))) == piece.base:
            return there, ""
    except ValueError:
        pass
    _forget(store, [piece.base])
    return 0, "the base arrived damaged"


def _sent(store: Store, spec: ModelSpec) -> Base | None:
    """Return the base that this device was sent; None if it has not all of it."""
    pieces = [piece for piece in _pieces(store) if piece.version == spec.base]
    inside = spec.built_around
    if inside is None or not pieces or kept_bytes(store, spec.base) < pieces[0].total:
        return None
    try:
        found = fill(inside.empty(), read(_joined(store, spec.base)))
        if found.version == spec.base:
            return found
    except ValueError:
        pass
    store.warn(f"the frozen base {spec.base} that was kept is damaged")
    _forget(store, [spec.base])
    return None


def _given(store: Store, spec: ModelSpec, checkpoint: str) -> Base | None:
    """Return the base in its owner's directory; None if that has another or none."""
    try:
        weights = load_local_base(spec, checkpoint) if checkpoint else None
    except SettingsError:
        store.warn("the weights in its directory of the checkpoint cannot be read")
        return None
    if weights is None:
        return None
    found = freeze(weights)
    if found.version == spec.base:
        return found
    store.warn(
        f"the weights in its directory of the checkpoint are others ({found.version}) "
        f"than the run's ({spec.base}), which it has to be sent"
    )
    return None


def _pieces(store: Store) -> list[_Kept]:
    """Return everything that is kept, bases in the order they came, pieces too."""
    found = (_NAME.fullmatch(name) for name in store.names(""))
    return sorted(
        _Kept(int(match[1]), match[2], int(match[3]), int(match[4]))
        for match in found
        if match
    )


def _joined(store: Store, version: str) -> bytes:
    pieces = [piece for piece in _pieces(store) if piece.version == version]
    return b"".join(store.read(piece.name) or b"" for piece in pieces)


def _forget(store: Store, versions: list[str]) -> None:
    for piece in _pieces(store):
        if piece.version in versions:
            store.remove(piece.name)
