"""Parts with versions and buffers: by hand, and in any order."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.settings.sections import MergeSettings
from server_app.merging.buffers import Buffer, Buffers, staleness_scale
from server_app.merging.means import Coordinates, PartMeans
from server_app.merging.robust import merging_rule
from server_app.run_folder.checkpoint import decode, encode

ONE = np.zeros(1, dtype=np.intp)


def vector(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


def test_the_scale_by_hand() -> None:
    assert staleness_scale(0) == 1.0
    assert staleness_scale(3) == 0.5
    assert staleness_scale(8) == pytest.approx(1 / 3)


def test_two_clients_one_of_them_late_by_hand() -> None:
    sums, model = Buffers(PartMeans), {"a": vector(0.0), "b": vector(10.0)}
    late = dict(sums.moves)  # what the second client was sent
    for change in (1.0, 1.0, 1.0):  # three rounds of the first client
        with sums.whole(dict(sums.moves)):
            sums.add("a", vector(change), 1)
        sums.apply(model)
    assert model["a"] == 3 and sums.moves == {"a": 3}
    ordered = dict(sums.moves)
    with sums.whole(late):  # it holds b as well, which nobody has moved
        sums.add("a", vector(4.0), 1)
        sums.add("b", vector(5.0), 1)
    with sums.whole(ordered):
        sums.add("a", vector(2.0), 3)
    sums.apply(model)
    # a: (1 * 4 / sqrt(1 + 3) + 3 * 2) / (1 + 3); b is as new to it as ever.
    assert model["a"] == 3 + (2 + 6) / 4
    assert model["b"] == 10 + 5
    assert sums.moves == {"a": 4, "b": 1}


def test_what_had_no_weight_makes_no_version() -> None:
    sums, model = Buffers(PartMeans), {"a": vector(1.0)}
    with sums.whole():
        sums.add("a", vector(7.0), 0)
    sums.apply(model)
    assert model["a"] == 1 and sums.moves == {}


def test_what_is_dropped_leaves_versions() -> None:
    sums, model = Buffers(PartMeans), {"a": vector(1.0)}
    sums.add("a", vector(1.0), 1)
    sums.apply(model)
    sums.add("a", vector(7.0), 1)
    sums.clear()
    sums.apply(model)
    assert model["a"] == 2 and sums.moves == {"a": 1}


REPLIES = st.lists(
    st.tuples(
        st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3),
        st.integers(1, 50),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("merging", ["mean", "clipped", "median"])
@given(REPLIES, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_bits(
    merging: str, replies: list[tuple[list[float], int, int]], random: Any
) -> None:
    rule = partial(merging_rule, MergeSettings(merging=merging))
    shuffled = [*replies]
    random.shuffle(shuffled)
    models = []
    for order in (replies, shuffled):
        sums, model = Buffers(rule), {"a": vector(0, 0, 0)}
        for _ in range(4):
            sums.add("a", vector(1, 1, 1), 1)
            sums.apply(model)
        for values, weight, ordered in order:
            with sums.whole({"a": ordered}):
                sums.add("a", vector(*values), weight)
        sums.apply(model)
        models.append(model["a"].tobytes())
    assert models[0] == models[1]


@given(REPLIES, st.integers(0, 5))
def test_a_reply_that_fails_half_way_leaves_nothing(
    replies: list[tuple[list[float], int, int]], at: int
) -> None:
    models = []
    for failing in (False, True):
        sums, model = Buffers(PartMeans, 0.5), {p: vector(0, 0, 0) for p in "ab"}
        for number, (values, weight, ordered) in enumerate(replies):
            if failing and number == min(at, len(replies) - 1):
                with pytest.raises(OSError, match="cut"), sums.whole():
                    sums.add("a", vector(3, 3, 3), 9)
                    sums.add("b", vector(3, 3, 3), 9)
                    raise OSError("cut")
            with sums.whole({"a": -ordered}):
                sums.add("a", vector(*values), weight)
        sums.apply(model)
        models.append((model["a"].tobytes(), model["b"].tobytes(), sums.moves))
    assert models[0] == models[1]


@pytest.mark.parametrize(
    ("share", "replies", "awaited", "waited", "due"),
    [
        (0.0, 1, 99, 0, True),
        (1.0, 3, 0, 0, True),
        (1.0, 3, 1, 0, False),
        (0.5, 2, 2, 0, True),
        (0.5, 2, 3, 0, False),  # ceil(2.5) = 3
        (0.3, 3, 7, 0, True),  # 0.3 * 10 is 3, whatever a computer makes of it
        (0.1, 1, 29, 9, False),
        (0.1, 1, 29, 10, True),  # by then a tenth of them replied ten times
    ],
)
def test_when_a_part_is_due(
    share: float, replies: int, awaited: int, waited: int, due: bool
) -> None:
    buffer = Buffer(PartMeans())
    buffer.replies, buffer.waited = replies, waited
    assert buffer.is_due(share, awaited) == due


def test_a_part_waits_for_its_holders_and_then_moves_by_all_it_has() -> None:
    sums, model = Buffers(PartMeans, 0.5), {"a": vector(0.0), "b": vector(0.0)}
    sums.awaited = {"a": 3}
    sums.add("a", vector(1.0), 1)
    sums.add("b", vector(1.0), 1)
    sums.apply(model)  # one of four that hold a, the only one that holds b
    assert (model["a"], model["b"]) == (0, 1)
    sums.awaited = {"a": 2}
    sums.add("a", vector(3.0), 1)
    sums.apply(model)
    assert model["a"] == 2 and sums.moves == {"a": 1, "b": 1}
    # A part that nobody finishes moves when it has waited for two rounds.
    sums.awaited = {"a": 9}
    sums.add("a", vector(1.0), 1)
    for expected in (2, 2, 3):
        sums.apply(model)
        assert model["a"] == expected


def test_an_expert_of_too_few_holders_is_dropped_once_it_is_due() -> None:
    sums, model = Buffers(PartMeans, 0.5), {"expert.0": vector(0.0)}
    sums.awaited = {"expert.0": 3}
    with sums.whole():
        sums.add("expert.0", vector(2.0), 1)
    assert sums.drop_experts(2) == []  # one of four: not due, and not dropped
    sums.apply(model)
    with sums.whole():
        sums.add("expert.0", vector(4.0), 1)
    sums.awaited = {"expert.0": 2}
    assert sums.drop_experts(2) == []  # two of four are due, and enough
    sums.apply(model)
    assert model["expert.0"] == 3
    with sums.whole():
        sums.add("expert.0", vector(9.0), 1)
    sums.awaited = {}
    assert sums.drop_experts(2) == [0]
    sums.apply(model)
    assert model["expert.0"] == 3


@pytest.mark.parametrize("merging", ["mean", "clipped", "median"])
@given(REPLIES, st.integers(0, 6))
def test_a_checkpoint_in_between_changes_no_bit(
    merging: str, replies: list[tuple[list[float], int, int]], at: int
) -> None:
    rule = partial(merging_rule, MergeSettings(merging=merging))
    models = []
    for interrupted in (False, True):
        sums, model = Buffers(rule, 1.0), {"a": vector(0, 0, 0), "b": vector(0)}
        sums.awaited = {"a": 1, "b": 1}
        for number, (values, weight, _) in enumerate(replies):
            if interrupted and number == min(at, len(replies) - 1):
                kept = decode(encode({"sums": sums.state()}))
                sums = Buffers(rule, 1.0)
                sums.load_state(kept["sums"])
            with sums.whole():
                sums.add("a", vector(*values), weight)
                sums.add("b", vector(values[0]), weight, Coordinates(ONE, 1))
        for _ in range(2):  # the second time it is due by its age
            sums.apply(model)
        models.append((model["a"].tobytes(), model["b"].tobytes()))
    assert models[0] == models[1]


@pytest.mark.parametrize("merging", ["mean", "clipped", "median"])
def test_holders_are_counted_from_one_move_to_the_next(merging: str) -> None:
    sums = merging_rule(MergeSettings(merging=merging))
    model = {"expert.0": vector(0.0)}
    for holders, dropped in ((2, []), (1, [0]), (2, [])):
        for _ in range(holders):
            with sums.whole():
                sums.add("expert.0", vector(1.0), 1)
        assert sums.drop_experts(2) == dropped
        sums.apply(model)
