"""Scores worked out by hand."""

import numpy as np
import pytest

from server_app.grouping import ClassMeans, whitener
from server_app.grouping.scores import chosen_apart, pair_scores, scores_to

TWO = ClassMeans.of(
    [[[1.0, 0.0], [5.0, 1.0]], [[0.0, 0.0], [5.0, 3.0]]], [[4, 6], [4, 3]]
)
# w_0 = 4 * 4 / 8 = 2 and ||(1, 0)||^2 = 1; w_1 = 6 * 3 / 9 = 2 and ||(0, 2)||^2 = 4:
# r = (2 * 1 + 2 * 4) / (2 * 2) = 2.5, and its error sqrt(2 / 4).
SCORE = 2.5 - 2 * np.sqrt(0.5)


def test_two_clients_of_two_classes() -> None:
    scores, freedom = pair_scores(TWO, z=2)
    assert scores[0, 1] == scores[1, 0] == pytest.approx(SCORE)
    assert freedom[0, 1] == freedom[1, 0] == 4
    one, its = scores_to(TWO[slice(0, 1)], TWO, z=2)
    assert one[1] == pytest.approx(SCORE)
    assert its[1] == 4


def test_a_class_that_one_of_them_has_not_does_not_count() -> None:
    said = ClassMeans.of(TWO.means, [[4, 0], [4, 3]])
    # r = 2 * 1 / 2 = 1, of two degrees of freedom.
    assert pair_scores(said, z=2)[0][0, 1] == pytest.approx(1 - 2)
    assert scores_to(said[slice(0, 1)], said, z=2)[0][1] == pytest.approx(1 - 2)


def test_one_sample_each_is_a_little_evidence() -> None:
    said = ClassMeans.of(TWO.means, [[1, 0], [1, 3]])
    # w_0 = 1/2: r = 1/2 / 2, of two degrees of freedom.
    assert pair_scores(said, z=2)[0][0, 1] == pytest.approx(0.25 - 2)
    assert scores_to(said[slice(0, 1)], said, z=2)[0][1] == pytest.approx(0.25 - 2)


def test_without_a_common_class_there_is_no_evidence() -> None:
    said = ClassMeans.of(TWO.means, [[1, 0], [0, 3]])
    assert np.isinf(pair_scores(said, z=2)[0][0, 1])
    assert np.isinf(scores_to(said[slice(0, 1)], said, z=2)[0][1])


def test_both_ways_to_score_agree() -> None:
    rng = np.random.default_rng(0)
    said = ClassMeans.of(
        rng.standard_normal((9, 5, 3)) + 20, rng.integers(0, 30, (9, 5))
    )
    pairs, freedom = pair_scores(said, z=1)
    for row in range(9):
        scores, its = scores_to(said[slice(row, row + 1)], said, z=1)
        others = np.arange(9) != row
        np.testing.assert_allclose(scores[others], pairs[row, others], rtol=1e-9)
        np.testing.assert_array_equal(its, freedom[row])


def test_features_are_whitened_by_the_scatter_of_all() -> None:
    scatter = [[[6.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [0.0, 0.0]]]
    white = whitener(scatter, [4, 1])
    # Sigma = diag(8, 2) / (5 - 2 - 1) = diag(4, 1), and W W^T is its inverse.
    np.testing.assert_allclose(white @ white.T, np.diag([0.25, 1]), atol=1e-5)


def test_few_samples_look_no_further_apart_than_many() -> None:
    """30 samples in all, of 10 features: the plain inverse would say 1.6."""
    rng, ratios = np.random.default_rng(0), []
    for _ in range(300):
        z = rng.standard_normal((2, 15, 10))
        within = z - z.mean(1, keepdims=True)
        scatter = np.einsum("cnq,cnp->cqp", within, within)
        said = ClassMeans.of(z.mean(1)[:, None], [[15], [15]])
        white = said.whitened(whitener(scatter, [14, 14]))
        ratios.append(pair_scores(white, z=0)[0][0, 1])
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("scatter", "freedom"), [([[4.0]], [0]), ([[4.0]], [2]), ([[0.0]], [9])]
)
def test_where_the_scatter_is_unknown_no_difference_is_one(
    scatter: list[list[float]], freedom: list[int]
) -> None:
    assert whitener([scatter], freedom) == 0


def test_means_and_counts_of_groups() -> None:
    groups = TWO.together(np.array([0, 0]), 2)
    np.testing.assert_array_equal(groups.counts, [[8, 9], [0, 0]])
    # (4 * 1 + 4 * 0) / 8, and (6 * 1 + 3 * 3) / 9.
    np.testing.assert_allclose(groups.means[0], [[0.5, 0], [5, 15 / 9]])
    np.testing.assert_array_equal(groups.means[1], 0)


def test_parts_of_one_cloud_differ_by_no_more_than_foretold() -> None:
    """Clients cut in two along their widest direction, the allowance beside it."""
    rng = np.random.default_rng(3)
    for clients, freedom in ((400, 50), (100, 200), (1000, 416)):
        points = rng.standard_normal((clients, freedom))
        along = points @ np.linalg.svd(points, full_matrices=False)[2][0]
        for share in (0.5, 0.2, 0.02):
            part = along > np.quantile(along, 1 - share)
            size = int(part.sum())
            weight = size * (clients - size) / clients
            gap = points[part].mean(0) - points[~part].mean(0)
            found = weight * (gap @ gap) / freedom
            most = float(chosen_apart(size, clients - size, np.array(freedom)))
            assert (most / 2 if share == 0.5 else 1) < found < most


@pytest.mark.parametrize(
    ("means", "counts", "reason"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), "expected"),
        (np.zeros((2, 3, 1)), np.zeros((2, 2)), "expected"),
        (np.full((1, 1, 1), np.nan), np.zeros((1, 1)), "finite"),
        (np.zeros((1, 1, 1)), -np.ones((1, 1)), "negative"),
    ],
)
def test_what_is_no_class_means(means: object, counts: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ClassMeans.of(means, counts)  # type: ignore[arg-type]
