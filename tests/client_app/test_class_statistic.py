"""What a client says of its samples, against samples taken one by one."""

from typing import Any

import numpy as np
import pytest
import torch

from client_app.class_statistic import class_statistic

CLASSES, FEATURES = 3, 5


def said(x: torch.Tensor, y: list[int], **more: Any) -> tuple[Any, Any, Any]:
    """Return means (K, q), counts (K,) and the covariance (q, q)."""
    found = class_statistic(
        x, torch.tensor(y), CLASSES, **{"seed": 7, "projections": FEATURES, **more}
    )
    upper = np.zeros((FEATURES, FEATURES))
    upper[np.triu_indices(FEATURES)] = found.statistic_covariance
    means = np.array(found.statistic_means).reshape(CLASSES, FEATURES)
    return means, found.statistic_counts, upper + np.triu(upper, 1).T


def alone(sample: torch.Tensor, **more: Any) -> np.ndarray:
    """Return z of one sample: the mean of two that are the same."""
    return np.array(said(torch.stack([sample, sample]), [0, 0], **more)[0][0])


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_means_counts_and_covariance_of_projected_samples() -> None:
    x, y = images(6), [0, 0, 2, 2, 2, 2]
    means, counts, covariance = said(x, y)
    z = np.stack([alone(sample) for sample in x])
    assert counts == [2, 0, 4]
    np.testing.assert_allclose(means[0], z[:2].mean(0), rtol=1e-5)
    np.testing.assert_allclose(means[2], z[2:].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(means[1], 0)
    # Six samples less two classes.
    within = np.concatenate([z[:2] - z[:2].mean(0), z[2:] - z[2:].mean(0)])
    np.testing.assert_allclose(covariance, within.T @ within / 4, rtol=1e-4, atol=1e-9)


def test_near_copies_count_as_one_sample_their_mean() -> None:
    x, y = images(7), [0, 0, 0, 1, 1, 1, 0]
    # The first three of class 0 are one unit; number 4 is a unit in both classes.
    units = np.array([9, 9, 9, 4, 5, 5, 4])
    means, counts, covariance = said(x, y, units=units)
    z = np.stack([alone(sample) for sample in x])
    first, second = [z[:3].mean(0), z[6]], [z[3], z[4:6].mean(0)]
    assert counts == [2, 2, 0]
    np.testing.assert_allclose(means[0], np.mean(first, axis=0), rtol=1e-5)
    np.testing.assert_allclose(means[1], np.mean(second, axis=0), rtol=1e-5)
    within = np.concatenate([first - means[0], second - means[1]])
    np.testing.assert_allclose(covariance, within.T @ within / 2, rtol=1e-4, atol=1e-9)


def test_samples_without_copies_say_the_same_by_units() -> None:
    x, y = images(6), [0, 0, 1, 1, 2, 2]
    plain, by_unit = said(x, y), said(x, y, units=np.array([3, 1, 4, 15, 9, 2]))
    assert plain[1] == by_unit[1]
    for mine, theirs in ((plain[0], by_unit[0]), (plain[2], by_unit[2])):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_the_projection_is_that_of_the_seed() -> None:
    x = images(1)[0]
    np.testing.assert_array_equal(alone(x), alone(x))
    assert not np.allclose(alone(x), alone(x, seed=8))
    assert not np.allclose(alone(x), alone(x.flip(-1)))


def test_of_one_sample_a_class_nothing_is_said() -> None:
    means, counts, _ = said(images(3), [0, 1, 2])
    assert counts == [0, 0, 0]
    assert not means.any()


def test_private_counts_say_nothing_of_rare_classes() -> None:
    means, counts, _ = said(images(134), [0] * 9 + [1] * 125, private=True)
    assert counts == [0, 100, 0]
    assert not means[0].any()
    assert means[1].any()


def test_noise_has_the_spread_of_a_sample_within_its_class() -> None:
    x, y = images(600), [0, 1, 2] * 200
    drawn = []
    for seed in range(60):  # other projections: other noise
        mine, _, scatter = said(x, y, seed=seed)
        noisy, counts, _ = said(x, y, seed=seed, noise=0.3)
        assert counts == [200, 200, 200]
        values, vectors = np.linalg.eigh(scatter)
        drawn.append((noisy - mine) @ vectors / np.sqrt(values))
    assert np.std(drawn) == pytest.approx(0.3, rel=0.1)
    assert np.abs(np.mean(drawn)) < 0.05


def test_noise_cannot_be_averaged_away_by_asking_again() -> None:
    x, y = images(60), [0, 1, 2] * 20
    np.testing.assert_array_equal(said(x, y, noise=1.0)[0], said(x, y, noise=1.0)[0])
    assert not np.allclose(said(x, y, noise=1.0)[0], said(x, y)[0])


def test_of_a_text_the_bag_of_its_tokens() -> None:
    text = torch.tensor([5, 900, 17, 17, 0, 0])
    again = torch.tensor([17, 5, 17, 900])
    np.testing.assert_allclose(alone(text), alone(again), rtol=1e-6)
    assert not np.allclose(alone(text), alone(torch.tensor([5, 900, 17, 18, 0, 0])))


def test_of_nothing_but_padding_there_is_nothing() -> None:
    np.testing.assert_array_equal(alone(torch.zeros(4, dtype=torch.int64)), 0)
