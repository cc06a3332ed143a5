"""Arrays in messages: what goes in comes out, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.inputs import InputError
from common.serving import inference_pb2 as pb
from common.serving.tensors import decode, encode


@given(
    hnp.arrays(
        st.sampled_from(["u1", "<f4", ">f4", "<i8"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_round_trip(array: np.ndarray) -> None:
    tensor = pb.Tensor.FromString(encode(array.T).SerializeToString())
    found = decode(tensor, "x")
    assert found.shape == array.T.shape
    np.testing.assert_array_equal(found, array.T)


@given(
    st.integers(-1, 5),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12),
    st.binary(max_size=40),
)
def test_any_message_is_an_array_or_an_input_error(
    dtype: int, shape: list[int], data: bytes
) -> None:
    tensor = pb.Tensor(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]
    try:
        array = decode(tensor, "x")
    except InputError as error:
        assert str(error).startswith("x.")
    else:
        assert array.nbytes == len(data)


@pytest.mark.parametrize(
    "shape", [[0, 2**62, 2**62], [2**62, 2**62, 0], [0] + [2**63 - 1] * 7, [0, 2**40]]
)
def test_lengths_that_an_axis_of_length_zero_hides_are_refused(
    shape: list[int],
) -> None:
    with pytest.raises(InputError, match=r"^x\.shape = .* is no shape"):
        decode(pb.Tensor(dtype=pb.UINT8, shape=shape), "x")


def test_a_decoded_array_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        decode(encode(np.zeros(3, np.float32)), "x")[0] = 1


def test_encode_refuses_what_the_messages_cannot_hold() -> None:
    with pytest.raises(ValueError, match="float64 cannot be sent: expected float32"):
        encode(np.zeros(3))
