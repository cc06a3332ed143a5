"""Counts by class, held against sums by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score

from common.class_counts import MOST_SQUARE, ClassCounts, most_counts, summed

LARGE = MOST_SQUARE + 1


def test_a_rare_class_that_is_never_found_shows() -> None:
    # 1000 : 1, and the answer is always the common class.
    counts = ClassCounts.of([0] * 1000 + [1], [0] * 1001, 2)
    assert counts.matrix is not None
    assert counts.matrix.tolist() == [[1000, 0], [1, 0]]
    assert counts.accuracy == 1000 / 1001
    assert counts.recall == [1.0, 0.0]
    assert counts.balanced == 0.5


def test_a_class_without_samples_has_no_recall_and_no_part_in_the_mean() -> None:
    counts = ClassCounts.of([0, 0, 2, 2], [0, 1, 2, 2], 4)
    assert counts.recall == [0.5, None, 1.0, None]
    assert counts.balanced == 0.75


def test_of_no_sample_nothing_is_known() -> None:
    counts = ClassCounts.of([], [], 3)
    assert (counts.total, counts.accuracy, counts.balanced) == (0, None, None)
    assert counts.recall == [None] * 3


pairs_of = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        st.just(k),
        st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1),
    )
)


@given(pairs_of)
def test_they_are_what_scikit_learn_says(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    classes, pairs = drawn
    true, given_ = (list(side) for side in zip(*pairs, strict=True))
    counts = ClassCounts.of(true, given_, classes)
    labels = list(range(classes))
    np.testing.assert_array_equal(
        counts.matrix, confusion_matrix(true, given_, labels=labels)
    )
    there = sorted(set(true))
    expected = recall_score(true, given_, labels=there, average=None, zero_division=0)
    assert counts.recall is not None
    assert [counts.recall[k] for k in there] == pytest.approx(expected.tolist())
    if set(given_) <= set(true):  # scikit-learn warns of others
        assert counts.balanced == pytest.approx(balanced_accuracy_score(true, given_))


@given(
    st.lists(st.tuples(st.integers(0, LARGE - 1), st.integers(0, LARGE - 1))),
    st.booleans(),
)
def test_many_classes_say_the_same_without_the_matrix(
    pairs: list[tuple[int, int]], wide: bool
) -> None:
    classes = LARGE if wide else MOST_SQUARE
    kept = [(t, g) for t, g in pairs if t < classes and g < classes]
    counts = ClassCounts.of([t for t, _ in kept], [g for _, g in kept], classes)
    assert len(counts.numbers) == most_counts(classes)
    assert (counts.matrix is None) == wide
    assert counts.total == len(kept)
    assert counts.correct == sum(t == g for t, g in kept)
    assert counts.recall is not None
    for k in {t for t, _ in kept}:
        own = [g == k for t, g in kept if t == k]
        assert counts.recall[k] == sum(own) / len(own)


@given(st.lists(pairs_of, max_size=4), st.booleans())
def test_a_sum_is_of_the_union(
    devices: list[tuple[int, list[tuple[int, int]]]], private: bool
) -> None:
    parts = [
        ClassCounts.of([t for t, _ in pairs], [g for _, g in pairs], 6)
        for _, pairs in devices
    ]
    everything = [pair for _, pairs in devices for pair in pairs]
    if private and parts:
        parts[-1] = parts[-1].without_classes()
    found = summed(parts)
    if not devices:
        assert found is None
        return
    assert found is not None
    whole = ClassCounts.of([t for t, _ in everything], [g for _, g in everything], 6)
    assert (found.correct, found.total) == (whole.correct, whole.total)
    if private:
        assert (found.recall, found.balanced, found.matrix) == (None, None, None)
    else:
        assert found.numbers.tolist() == whole.numbers.tolist()


@pytest.mark.parametrize(
    ("numbers", "classes", "said"),
    [
        ([1, 2, 3], 2, "3 counts of 2 classes, expected 4"),
        ([], 2, "0 counts"),
        ([1, 0, 0, -1], 2, "more right answers than"),
        ([-1, 2, 0, 1], 2, "counts below 0"),
        ([3, 2], 2, "more right answers than"),
        ([1] + [0] * (2 * LARGE - 1), LARGE, "more right answers than"),
        ([0] * LARGE**2, LARGE, f"expected {2 * LARGE}"),
    ],
)
def test_what_are_no_counts_is_refused(
    numbers: list[int], classes: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        ClassCounts.read(numbers, classes)


def test_what_was_counted_can_be_read_again() -> None:
    for classes in (2, 3, LARGE):
        counts = ClassCounts.of([0, 1, 1], [1, 1, 0], classes)
        for each in (counts, counts.without_classes()):
            again = ClassCounts.read(each.numbers.tolist(), classes)
            assert again.numbers.tolist() == each.numbers.tolist()
            assert again.recall == each.recall
