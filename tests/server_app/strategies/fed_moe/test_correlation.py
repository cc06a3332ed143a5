"""Fed-MoE's Eq. 4-6 and 11-13 against numbers worked out by hand."""

import numpy as np
import pytest

from server_app.strategies.fed_moe.correlation import (
    client_weights,
    correlation,
    expert_weights,
    mixture,
    moved,
    server_weights,
)

# Two reserved samples, K = 2 routed experts, m = 3 client models.
GATES = np.array([[0.75, 0.25], [0.5, 0.5]])
CONFIDENCE = np.array([[0.8, 0.4, 0.0], [0.2, 0.6, 1.0]])
# .75*.8 + .5*.2, .75*.4 + .5*.6, .5*1;  .25*.8 + .5*.2, .25*.4 + .5*.6, .5*1
SUMMED = np.array([[0.7, 0.6, 0.5], [0.3, 0.4, 0.5]])


def test_correlation_is_the_sum_or_mean_of_outer_products() -> None:
    np.testing.assert_allclose(correlation(GATES, CONFIDENCE), SUMMED)
    mean = correlation(GATES, CONFIDENCE, "mean")
    np.testing.assert_allclose(mean, SUMMED / 2)
    single = correlation(GATES[:1], CONFIDENCE[:1])
    np.testing.assert_allclose(single, np.outer([0.75, 0.25], [0.8, 0.4, 0.0]))


def test_rows_of_the_client_weights_are_softmaxes() -> None:
    # Logarithms make the softmax readable: 1/(1+3), 3/(1+3); 2/(2+6), 6/(2+6).
    w = np.log([[1.0, 3.0], [2.0, 6.0]])
    np.testing.assert_allclose(client_weights(w), [[0.25, 0.75], [0.25, 0.75]])
    np.testing.assert_allclose(client_weights(w + 5000.0), client_weights(w))


def test_columns_of_the_server_weights_have_the_main_expert_on_top() -> None:
    # alpha = 1/2: cat(1/2, w/2); column 0: e^.5, e^.5, e^.5; column 1: e^.5, e^0, e^.5.
    w = np.array([[1.0, 0.0], [1.0, 1.0]])
    root = np.sqrt(np.e)
    expected = np.array([[1 / 3, 1 / 3, 1 / 3], np.array([root, 1, root])]).T
    expected[:, 1] /= 2 * root + 1
    np.testing.assert_allclose(server_weights(w, 0.5), expected)


def test_alpha_moves_weight_from_the_main_to_the_routed_experts() -> None:
    w = np.ones((2, 1))
    # alpha = 3/4: e^.25 against twice e^.75.
    main = 1 / (1 + 2 * np.exp(0.5))
    np.testing.assert_allclose(server_weights(w, 0.75)[0, 0], main)
    assert server_weights(w, 0.25)[0, 0] > 1 / 3 > main


def test_without_a_main_expert_the_routed_ones_share_everything() -> None:
    weights = server_weights(np.log([[3.0, 5.0], [1.0, 5.0]]), 1.0)
    np.testing.assert_allclose(weights, [[0.0, 0.0], [0.75, 0.5], [0.25, 0.5]])


def test_summed_correlations_are_brought_back_to_the_scale_of_alpha() -> None:
    np.testing.assert_allclose(
        expert_weights(np.log([[3.0, 5.0], [1.0, 5.0]])), [[0.75, 0.5], [0.25, 0.5]]
    )


def test_eq_13_mixes_each_client_its_own_model() -> None:
    main, routed = np.array([4.0, 0.0], np.float32), np.array([0.0, 8.0], np.float32)
    weights = np.array([[0.75, 0.5], [0.25, 0.5]])  # W^c of two clients
    client = np.array([10.0, 10.0], np.float32)
    # .1 * 10 + .9 * (.75 * 4), .1 * 10 + .9 * (.25 * 8); then .9 * 2, .9 * 4
    for column, expected in zip(weights.T, ([3.7, 2.8], [2.8, 4.6]), strict=True):
        new = moved(client, mixture(column, [main, routed]), 0.9)
        assert new.dtype == np.float32
        np.testing.assert_allclose(new, expected, rtol=1e-6)


@pytest.mark.parametrize(("rate", "expected"), [(0.25, [1.5, 3.0]), (0.75, [2.5, 1.0])])
def test_moving_average(rate: float, expected: list[float]) -> None:
    old, target = np.array([1.0, 4.0], np.float32), np.array([3.0, 0.0], np.float32)
    np.testing.assert_array_equal(moved(old, target, rate), expected)
    np.testing.assert_array_equal(old, [1, 4])
