"""Part vectors in fewer bytes: worked by hand, and what must hold for any values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.moe import Layout
from common.wire.codec import CodecError, Dtype, decode, encode, encoded_size

# Row maxima 127 and 254 give scales 1 and 2.
LAYOUT: Layout = (("weight", (2, 3)), ("bias", (2,)), ("gain", ()))
VECTOR = np.array([127, -1, 0.4, 254, 3.2, -5, 0.1, -7, 9], np.float32)
SIZE = len(VECTOR)

values = arrays(np.float32, SIZE, elements=st.floats(-(2**99), 2**99, width=32))


def test_int8_by_hand() -> None:
    data = encode(VECTOR, LAYOUT, "int8")
    exact, scales, numbers = data[:12], data[12:20], data[20:]
    np.testing.assert_array_equal(exact.view("<f4"), VECTOR[6:])
    np.testing.assert_array_equal(scales.view("<f4"), [1, 2])
    # 5/2 = 2.5 rounds to the even 2.
    np.testing.assert_array_equal(numbers.view("i1"), [127, -1, 0, 127, 2, -2])
    np.testing.assert_array_equal(
        decode(data, LAYOUT, "int8"),
        np.array([127, -1, 0, 254, 4, -4, 0.1, -7, 9], np.float32),
    )


def test_float16_by_hand() -> None:
    vector = np.array([1.0, 1 / 3, 1e9, -1e9, 0, 2**-24, 1 / 3, 1e9, 0], np.float32)
    decoded = decode(encode(vector, LAYOUT, "float16"), LAYOUT, "float16")
    third = np.float32(np.float16(1 / 3))
    np.testing.assert_array_equal(
        decoded, np.array([1, third, 65504, -65504, 0, 2**-24, *vector[6:]], np.float32)
    )


@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 36), ("float16", 24), ("int8", 26)]
)
def test_encoded_size(dtype: Dtype, size: int) -> None:
    assert encoded_size(LAYOUT, dtype) == size


@given(values)
def test_int8_is_off_by_at_most_half_a_step_and_exact_where_it_must_be(
    vector: np.ndarray,
) -> None:
    decoded = decode(encode(vector, LAYOUT, "int8"), LAYOUT, "int8")
    for start in (0, 3):
        row, back = vector[start : start + 3], decoded[start : start + 3]
        step = np.abs(row).max() / 127
        assert (np.abs(row - back) <= 0.5001 * step + 1e-42).all()
    np.testing.assert_array_equal(decoded[6:], vector[6:])


@given(values, st.integers(0, 2**32))
def test_stochastic_rounding_goes_to_a_neighbour(vector: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    decoded = decode(encode(vector, LAYOUT, "int8", rng), LAYOUT, "int8")
    for start in (0, 3):
        row, back = vector[start : start + 3], decoded[start : start + 3]
        step = np.abs(row).max() / 127
        assert (np.abs(row - back) <= 1.0001 * step + 1e-42).all()


def test_stochastic_rounding_is_right_on_average_and_seeded() -> None:
    vector = np.array([127, 0.25, -0.75, 127, 0.5, 3.9, 0, 0, 0], np.float32)

    def coded(seed: int) -> np.ndarray:
        data = encode(vector, LAYOUT, "int8", np.random.default_rng(seed))
        return decode(data, LAYOUT, "int8")

    np.testing.assert_array_equal(coded(5), coded(5))
    mean = np.mean([coded(seed) for seed in range(2000)], axis=0)
    # The standard error of one of 2000 draws is at most 0.5 / sqrt(2000) = 0.011.
    np.testing.assert_allclose(mean, vector, atol=0.05)


def test_rows_of_zeros_and_parts_without_matrices() -> None:
    zeros = np.zeros(SIZE, np.float32)
    np.testing.assert_array_equal(
        decode(encode(zeros, LAYOUT, "int8"), LAYOUT, "int8"), zeros
    )
    norms: Layout = (("weight", (3,)), ("bias", (3,)))
    vector = np.arange(6, dtype=np.float32)
    for dtype in ("float16", "int8"):
        np.testing.assert_array_equal(
            decode(encode(vector, norms, dtype), norms, dtype), vector
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_diverged_cannot_hide_in_int8(bad: float) -> None:
    vector = VECTOR.copy()
    vector[1] = bad
    with pytest.raises(CodecError, match="scale"):
        decode(encode(vector, LAYOUT, "int8"), LAYOUT, "int8")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("change", [-1, 1, 4])
def test_a_wrong_length_is_refused(dtype: Dtype, change: int) -> None:
    assert dtype != "float32"
    data = np.zeros(encoded_size(LAYOUT, dtype) + change, np.uint8)
    with pytest.raises(CodecError, match=rf"{data.size} bytes, expected"):
        decode(data, LAYOUT, dtype)


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf, 3e38])
def test_an_impossible_scale_is_refused(scale: float) -> None:
    data = encode(VECTOR, LAYOUT, "int8")
    data[12:16] = np.array([scale], "<f4").view(np.uint8)
    with pytest.raises(CodecError, match="scale"):
        decode(data, LAYOUT, "int8")
