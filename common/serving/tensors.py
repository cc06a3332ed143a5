"""Arrays in messages: to and from ``Tensor``, nothing believed that was not checked."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.inputs import InputError
from common.serving import inference_pb2 as pb

DTYPES: dict[int, np.dtype[Any]] = {
    pb.UINT8: np.dtype("u1"),
    pb.FLOAT32: np.dtype("<f4"),
    pb.INT64: np.dtype("<i8"),
}
_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}
MAX_AXES = 8
MAX_VALUES = 2**31
"""Of all axes but those of length 0, which hide what numpy cannot index."""


def encode(array: NDArray[Any]) -> pb.Tensor:
    """Return an array as a message.

    Raises
    ------
    InputError
        If its type is none of uint8, float32 and int64.
    """
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _NUMBERS:
        known = ", ".join(sorted(known.name for known in _NUMBERS))
        raise InputError(f"{array.dtype} cannot be sent: expected {known}")
    data = np.ascontiguousarray(array, dtype).tobytes()
    return pb.Tensor(dtype=pb.DType.Name(_NUMBERS[dtype]), shape=array.shape, data=data)


def decode(tensor: pb.Tensor, name: str) -> NDArray[Any]:
    """Return the array in a message: read-only, a view of its bytes.

    Raises
    ------
    InputError
        Naming the field below ``name`` that is wrong.
    """
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        allowed = ", ".join(pb.DType.Name(number) for number in DTYPES)
        raise InputError(f"{name}.dtype = {tensor.dtype} is not one of {allowed}")
    shape = tuple(tensor.shape)
    if len(shape) > MAX_AXES or any(axis < 0 for axis in shape):
        raise InputError(f"{name}.shape = {shape[: MAX_AXES + 1]} is no shape")
    expected = prod(shape) * dtype.itemsize
    if len(tensor.data) != expected:
        raise InputError(
            f"{name}.data has {len(tensor.data)} bytes: {dtype.name} of shape {shape} "
            f"takes {expected}"
        )
    if prod(filter(None, shape)) > MAX_VALUES:
        raise InputError(f"{name}.shape = {shape} is no shape")
    return np.frombuffer(tensor.data, dtype).reshape(shape)
