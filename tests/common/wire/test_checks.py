"""Whether a reply fits its order."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from common import wire
from common.wire import TrainReport, WireError
from tests.common.wire.support import ORDER, SIZES, deltas, report


def changed(**changes: Any) -> dict[str, Any]:
    vectors = deltas() | changes
    return {name: v for name, v in vectors.items() if v is not None}


@pytest.mark.parametrize(
    ("reply", "vectors", "said"),
    [
        (report(server_round=2), deltas(), "round 2, not 3"),
        (report(), changed(**{"expert.5": np.zeros(2, np.float32)}), "never assigned"),
        (report(), changed(gate=np.zeros(2, np.float32)), "gate"),
        (report(), changed(extractor=None), "missing"),
        (report(), changed(extractor=np.zeros(5, np.float32)), "5 values, expected 4"),
        (report(), changed(extractor=np.full(4, np.nan, np.float32)), "NaN"),
        (report(expert_samples=[6]), deltas(), "one entry per ordered expert"),
        (report(expert_samples=[60, 4]), deltas(), "at most 20"),
        (report(num_examples=0, expert_samples=[0, 0]), deltas(), "at least one"),
        (report(gate_mass=[1.0]), deltas(), "gate_mass"),
        (report(candidate=1), deltas(), "candidate is 1, of 1"),
    ],
)
def test_a_reply_that_does_not_fit_its_order_is_refused(
    reply: TrainReport, vectors: dict[str, Any], said: str
) -> None:
    with pytest.raises(WireError, match=said):
        wire.check_report(ORDER, reply, vectors, SIZES)


def test_what_was_asked_about_the_gate_must_be_there_and_nothing_else() -> None:
    asked = {"report_gate": True, "report_information": True}
    order = ORDER.model_copy(update=asked)
    full: dict[str, Any] = {
        "gate_mass": [0.125] * 8,
        "responsibility": [0.5, 0.5],
        "input_information": [0.0] * 8,
        "label_information": [0.0] * 8,
    }
    wire.check_report(order, report(**full), deltas(), SIZES)
    for field in full:
        with pytest.raises(WireError, match=field):
            without = {**full, field: []}
            wire.check_report(order, report(**without), deltas(), SIZES)
        with pytest.raises(WireError, match=field):
            wire.check_report(ORDER, report(**{field: full[field]}), deltas(), SIZES)


def test_layers_and_tokens_widen_what_a_reply_may_say() -> None:
    order = ORDER.model_copy(update={"report_gate": True})
    said = report(
        expert_samples=[60, 20], gate_mass=[0.125] * 16, responsibility=[0.5, 0.5]
    )
    wire.check_report(order, said, deltas(), SIZES, num_layers=2, positions=4)
    with pytest.raises(WireError, match="gate_mass must have 8"):
        wire.check_report(order, said, deltas(), SIZES, positions=4)
    with pytest.raises(WireError, match="at most 60"):
        wire.check_report(order, said, deltas(), SIZES, num_layers=2, positions=3)


def test_only_a_message_of_flowers_own_strategies_may_be_float64() -> None:
    values = np.array([1.0, 1e-3])
    content = RecordDict({"arrays": ArrayRecord({"extractor": Array(values)})})
    with pytest.raises(WireError, match="float64"):
        wire.unpack(wire.arrays_of(content))
    [vector] = wire.decode_flower_arrays(content).values()
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, values.astype(np.float32))


def test_local_counts_are_of_the_classes_there_are_and_of_client_local() -> None:
    right = report(client_local=0.75, local_counts=[2, 1, 0, 1])
    wire.check_report(ORDER, right, deltas(), SIZES, num_classes=2)
    found = wire.local_counts(right, 2)
    assert found is not None and found.recall == [2 / 3, 1.0]
    private = report(client_local=0.75, local_counts=[3, 4])
    wire.check_report(ORDER, private, deltas(), SIZES, num_classes=2)
    assert wire.local_counts(report(client_local=0.75), 2) is None
    wrong = [
        (right, 3, "4 counts of 3 classes"),
        (report(client_local=0.5, local_counts=[2, 1, 0, 1]), 2, "by its local-counts"),
        (report(local_counts=[2, 1, 0, 1]), 2, "without a held-out sample"),
        (report(client_local=0.0, local_counts=[0] * 4), 2, "without a held-out"),
        (report(client_local=1.0, local_counts=[3, 2]), 2, "more right answers"),
    ]
    for said, classes, why in wrong:
        with pytest.raises(WireError, match=why):
            wire.check_report(ORDER, said, deltas(), SIZES, num_classes=classes)
    for numbers in ([-1, 2, 0, 0], [10**10, 0, 0, 0], [0] * 20_001):
        with pytest.raises(WireError, match="local-counts"):
            report(client_local=0.5, local_counts=numbers)
