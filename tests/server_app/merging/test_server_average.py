"""The average over rounds: by hand, and across a checkpoint."""

import numpy as np
import pytest

from common.parts import Vector
from server_app.merging.means import ServerAverage


def model(value: float) -> dict[str, Vector]:
    return {part: np.full(2, value, np.float32) for part in ("extractor", "expert.0")}


@pytest.mark.parametrize(
    ("memory", "values", "expected"),
    [
        # 1, then (1 + 3) / 2 = 2, then 0.5 * 2 + 0.5 * 7.
        (0.5, (1.0, 3.0, 7.0), 4.5),
        # The plain mean of all three; a memory of 0.8 from the start would give 2.72.
        (0.8, (1.0, 3.0, 8.0), 4.0),
    ],
)
def test_it_is_a_mean_first_and_forgets_later(
    memory: float, values: tuple[float, ...], expected: float
) -> None:
    average = ServerAverage(memory)
    for value in values:
        average.add(model(value))
    assert [*average.parts] == ["extractor", "expert.0"]
    for vector in average.parts.values():
        np.testing.assert_allclose(vector, [expected, expected], rtol=1e-6)


def test_without_memory_nothing_is_kept() -> None:
    average = ServerAverage(0.0)
    average.add(model(1.0))
    assert not average.parts and not average.rounds


def test_a_restored_one_goes_on_with_the_same_bits() -> None:
    through, first, second = (ServerAverage(0.7) for _ in range(3))
    values = np.random.default_rng(0).normal(size=6).tolist()
    for value in values:
        through.add(model(value))
    for value in values[:3]:
        first.add(model(value))
    second.load_state(first.state())
    for value in values[3:]:
        second.add(model(value))
    np.testing.assert_equal(second.state(), through.state())
