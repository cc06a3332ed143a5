"""What a client sends is clipped as one, as it will be read."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_app.clipping import clipped, norm_of, pack_clipped
from client_app.kept.residuals import Residuals
from common.wire import Packing, unpack
from common.wire.codec import Dtype
from tests.client_app.homes import home_of

LAYOUTS = {"a": (("w", (4, 3)), ("b", (4,))), "b": (("w", (2, 2)),)}
SIZES = {"a": 16, "b": 4}
VALUES = st.floats(-1e4, 1e4, width=32)
DTYPES: list[Dtype] = ["float32", "float16", "int8"]


def vectors(values: list[float]) -> dict[str, np.ndarray]:
    joined = np.array(values, dtype=np.float32)
    return {"a": joined[:16], "b": joined[16:]}


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    values=st.lists(VALUES, min_size=20, max_size=20),
    clip=st.floats(1e-2, 100.0),
    seed=st.integers(0, 99),
)
def test_what_the_server_reads_has_a_norm_of_c_at_most(
    dtype: Dtype, values: list[float], clip: float, seed: int
) -> None:
    packing = Packing(dtype=dtype, layouts=LAYOUTS)
    rng = np.random.default_rng(seed)
    _, arrays = pack_clipped(vectors(values), packing, rng, clip)
    assert norm_of(unpack(arrays, packing)) <= clip * (1 + 1e-6)


def test_parts_are_clipped_together_by_hand() -> None:
    sent = clipped({"a": np.array([3.0]), "b": np.array([4.0])}, 1.0)
    assert sent["a"] == pytest.approx([0.6], rel=1e-2)
    assert sent["b"] == pytest.approx([0.8], rel=1e-2)
    assert norm_of(sent) <= 1


def test_what_is_short_enough_stays_as_it_is_and_nothing_stays_nothing() -> None:
    for values in ([0.3] * 20, [0.0] * 20):
        before = vectors(values)
        after = clipped(before, 2.0)
        assert all(np.array_equal(before[part], after[part]) for part in before)


def test_what_is_not_finite_is_left_to_the_server_to_refuse() -> None:
    packing = Packing(dtype="float16", layouts=LAYOUTS)
    bad = vectors([math.inf, *[0.0] * 19])
    _, arrays = pack_clipped(bad, packing, np.random.default_rng(0), 1.0)
    assert arrays.keys() == bad.keys()


def test_what_clipping_took_away_is_not_sent_later() -> None:
    residuals = Residuals(home_of().store("run"), kept=2)
    packing = Packing(dtype="int8", layouts=LAYOUTS)
    large = vectors([100.0] * 20)
    residuals.pack(
        large,
        packing,
        server_round=1,
        merged_round=0,
        rng=np.random.default_rng(0),
        clip=1.0,
    )
    left = residuals.load(1, SIZES)
    assert norm_of(left) < 0.2  # of rounding alone
