"""The frozen checkpoint a client was sent, kept so that it is never sent again.

It is by far the largest thing that travels, and the only one that never changes: kept
whatever ``expert-cache`` says, one version at a time.
"""

from pathlib import Path

from flwr.app import Array

from client_app.kept.store import Store, read_array
from common import wire
from common.moe import EncoderSpec
from common.moe.pretrained import install_vector, is_installed
from common.parts import BASE

_PLACE = "base/{}.npy"


def base_versions(store: Store) -> list[str]:
    """Return the versions that are kept."""
    start, end = _PLACE.split("{}")
    return [n.removeprefix(start).removesuffix(end) for n in store.names(start)]


def take_base(store: Store, encoder: EncoderSpec, sent: Array | None) -> bool:
    """Make the base an order asks for usable; False if it is not here.

    Parameters
    ----------
    encoder : EncoderSpec
        ``base`` is the version ordered.
    sent : Array or None
        What the message carried.

    Raises
    ------
    WireError
        If what was sent is another version, or not of this configuration.
    """
    name, kept = _PLACE.format(encoder.base), base_versions(store)
    if sent is not None:
        if wire.version(sent) != encoder.base:
            raise wire.WireError(f"{BASE} is not of the version ordered")
        _install(encoder, sent)
        store.write(name, sent.data)
        for old in {*kept} - {encoder.base}:
            store.remove(_PLACE.format(old))
        return True
    if encoder.base not in kept:
        return False
    if is_installed(encoder.base):  # by an earlier message to this process
        return True
    array = read_array(store.read(name), encoder.base)
    if array is None:
        store.remove(name)
        return False
    _install(encoder, array)
    return True


def install_from(folder: Path, encoder: EncoderSpec) -> None:
    """Make the base in a client's folder usable; ValueError if it is not there."""
    path = folder / _PLACE.format(encoder.base)
    array = read_array(path.read_bytes() if path.is_file() else None, encoder.base)
    if array is None:
        raise ValueError(f"its frozen base is not in {path}")
    _install(encoder, array)


def _install(encoder: EncoderSpec, array: Array) -> None:
    if is_installed(encoder.base):
        return
    try:
        install_vector(encoder, wire.unpack({BASE: array})[BASE])
    except ValueError as error:
        raise wire.WireError(str(error)) from None
