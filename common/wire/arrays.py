"""Parts as arrays of a message and back; arrays that arrive are untrusted bytes."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array
from numpy.typing import NDArray

from common.parts import GATE, Layout, Vector
from common.wire.codec import CodecError, Dtype, decode, encode, encoded_size
from common.wire.payloads import WireError

HEADER_BYTES = 128
"""What numpy.save writes before a vector."""


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
            values = flat(name, array, ("float32",))
            vectors[name] = values.astype(np.float32, copy=False)
            continue
        try:
            data = flat(name, array, ("uint8",))
            vectors[name] = decode(data, packing.layouts[name], dtype)
        except CodecError as error:
            raise WireError(f"array {name!r} cannot be read: {error}") from None
    return vectors


def version(array: Array) -> str:
    """Return which values a packed part has: 16 hexadecimal digits of their hash."""
    return hashlib.sha256(array.data).hexdigest()[:16]


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


def flat(name: str, array: Array, dtypes: tuple[str, ...]) -> NDArray[Any]:
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
