"""The frozen checkpoint a client was sent, kept so that it is never sent again.

It is by far the largest thing that travels, and the only one that never changes: kept
whatever ``expert-cache`` says, one version at a time.
"""

from pathlib import Path

from flwr.app import Array

from client_app.kept.store import Store, read_array
from common import wire
from common.moe.bases import BuiltAround, install_vector, is_installed
from common.parts import BASE

_PLACE = "base/{}.npy"


def base_versions(store: Store) -> list[str]:
    """Return the versions that are kept."""
    start, end = _PLACE.split("{}")
    return [n.removeprefix(start).removesuffix(end) for n in store.names(start)]


def take_base(store: Store, spec: BuiltAround, sent: Array | None) -> bool:
    """Make the base an order asks for usable; False if it is not here.

    Parameters
    ----------
    spec : BuiltAround
        ``base`` is the version ordered.
    sent : Array or None
        What the message carried.

    Raises
    ------
    WireError
        If what was sent is another version, or not of this configuration.
    """
    name, kept = _PLACE.format(spec.base), base_versions(store)
    if sent is not None:
        if wire.version(sent) != spec.base:
            raise wire.WireError(f"{BASE} is not of the version ordered")
        _install(spec, sent)
        store.write(name, sent.data)
        for old in {*kept} - {spec.base}:
            store.remove(_PLACE.format(old))
        return True
    if spec.base not in kept:
        return False
    if is_installed(spec.base):  # by an earlier message to this process
        return True
    array = read_array(store.read(name), spec.base)
    if array is None:
        store.remove(name)
        return False
    _install(spec, array)
    return True


def install_from(folder: Path, spec: BuiltAround) -> None:
    """Make the base in a client's folder usable; ValueError if it is not there."""
    path = folder / _PLACE.format(spec.base)
    array = read_array(path.read_bytes() if path.is_file() else None, spec.base)
    if array is None:
        raise ValueError(f"its frozen base is not in {path}")
    _install(spec, array)


def _install(spec: BuiltAround, array: Array) -> None:
    if is_installed(spec.base):
        return
    try:
        install_vector(spec, wire.unpack({BASE: array})[BASE])
    except ValueError as error:
        raise wire.WireError(str(error)) from None
