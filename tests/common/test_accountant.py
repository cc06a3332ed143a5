"""Epsilon against closed forms, worked out here, and against dp-accounting itself."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
)
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import norm

from common.accountant import Release, epsilon_of

DELTA = 1e-5


def root(delta_at: Callable[[float], float], delta: float) -> float:
    """Return the epsilon at which a falling delta(epsilon) is ``delta``."""
    return float(brentq(lambda epsilon: delta_at(epsilon) - delta, 0.0, 200.0))


def exact(multiplier: float, rounds: int, delta: float = DELTA) -> float:
    """Return epsilon of T Gaussians: Balle and Wang, ICML 2018, Theorem 8.

    delta = Phi(1/(2 s) - eps s) - e^eps Phi(-1/(2 s) - eps s), s = z / sqrt(T).
    """
    s = multiplier / math.sqrt(rounds)

    def delta_at(epsilon: float) -> float:
        above = norm.logcdf(-1 / (2 * s) - epsilon * s) + epsilon
        return float(norm.cdf(1 / (2 * s) - epsilon * s) - math.exp(above))

    return root(delta_at, delta)


def by_renyi(multiplier: float, rounds: int, delta: float = DELTA) -> float:
    """Return min over a of T a / (2 z^2) + ln(1/delta) / (a - 1) (Mironov, 2017)."""
    orders = np.concatenate([np.linspace(1.01, 10, 900), np.arange(10.0, 500.0)])
    costs = rounds * orders / (2 * multiplier**2) + math.log(1 / delta) / (orders - 1)
    return float(costs.min())


@pytest.mark.parametrize(
    ("multiplier", "rounds", "delta"),
    [(5, 40, 1e-5), (10, 40, 1e-5), (1, 1, 1e-5), (1, 20, 1e-6), (3, 200, 1e-7)],
)
def test_gaussians_cost_what_the_closed_form_says(
    multiplier: float, rounds: int, delta: float
) -> None:
    found = epsilon_of({Release(multiplier): rounds}, delta)
    truth = exact(multiplier, rounds, delta)
    assert truth <= found <= truth * 1.001 + 1e-3
    assert found <= by_renyi(multiplier, rounds, delta)


def test_the_figures_of_the_method() -> None:
    """Of docs/methods.md, 9: the closed form by Rényi divergences, T = 40."""
    assert by_renyi(5, 40) == pytest.approx(6.9, abs=0.05)
    assert by_renyi(10, 40) == pytest.approx(3.2, abs=0.05)


def test_unlike_gaussians_add_up_as_one() -> None:
    found = epsilon_of({Release(3.0): 4, Release(6.0): 8}, DELTA)
    precision = 4 / 9 + 8 / 36
    truth = exact(1 / math.sqrt(precision), 1)
    assert truth <= found <= truth * 1.001 + 1e-3


def sampled_once(multiplier: float, rate: float, delta: float) -> float:
    """Return epsilon of one sampled Gaussian by its privacy profile, both ways.

    P = (1 - q) N(0, z^2) + q N(1, z^2) and Q = N(0, z^2): P exceeds e^eps Q above
    some x and Q exceeds e^eps P below some x, so each delta is of two tails.
    """

    def tails(x: float) -> tuple[float, float]:
        q = float(norm.sf(x / multiplier))
        return (1 - rate) * q + rate * float(norm.sf((x - 1) / multiplier)), q

    def ratio_is(value: float) -> float:
        """Return x at which dP/dQ = 1 - q + q e^((2 x - 1) / (2 z^2)) is a value."""
        return multiplier**2 * math.log((value - 1 + rate) / rate) + 0.5

    def delta_of_p(epsilon: float) -> float:
        p, q = tails(ratio_is(math.exp(epsilon)))
        return p - math.exp(epsilon) * q

    def delta_of_q(epsilon: float) -> float:
        if math.exp(-epsilon) <= 1 - rate:
            return 0.0
        p, q = tails(ratio_is(math.exp(-epsilon)))
        return (1 - q) - math.exp(epsilon) * (1 - p)

    return root(lambda e: max(delta_of_p(e), delta_of_q(e)), delta)


@pytest.mark.parametrize(("multiplier", "rate"), [(1.0, 0.1), (0.7, 0.5), (2.0, 0.02)])
def test_one_sampled_gaussian_costs_what_its_tails_say(
    multiplier: float, rate: float
) -> None:
    found = epsilon_of({Release(multiplier, rate): 1}, DELTA)
    truth = sampled_once(multiplier, rate, DELTA)
    assert truth * (1 - 1e-6) <= found <= truth * 1.01 + 1e-3


def renyi_sampled(multiplier: float, rate: float, rounds: int, delta: float) -> float:
    """Return the bound of integer orders (Mironov, Talwar, Zhang, 2019, Eq. 6)."""
    costs = []
    for order in range(2, 64):
        terms = [
            math.log(math.comb(order, k))
            + (order - k) * math.log(1 - rate)
            + k * math.log(rate)
            + k * (k - 1) / (2 * multiplier**2)
            for k in range(order + 1)
        ]
        cost = rounds * float(logsumexp(terms)) / (order - 1)
        costs.append(cost + math.log(1 / delta) / (order - 1))
    return min(costs)


@pytest.mark.parametrize(
    ("multiplier", "rate", "rounds"), [(1.0, 0.1, 50), (2.0, 0.3, 40), (0.8, 0.02, 100)]
)
def test_sampled_gaussians_against_dp_accounting_and_integer_orders(
    multiplier: float, rate: float, rounds: int
) -> None:
    found = epsilon_of({Release(multiplier, rate): rounds}, DELTA)
    event = PoissonSampledDpEvent(rate, GaussianDpEvent(multiplier))
    relation = NeighboringRelation.REPLACE_SPECIAL
    by_pld, by_rdp = PLDAccountant(relation), RdpAccountant([*range(2, 256)], relation)
    for accountant in (by_pld, by_rdp):
        accountant.compose(event, rounds)
    direct = [a.get_epsilon(DELTA) for a in (by_pld, by_rdp)]
    assert found == pytest.approx(min(direct), rel=1e-3)
    assert found <= renyi_sampled(multiplier, rate, rounds, DELTA)
    assert found < epsilon_of({Release(multiplier): rounds}, DELTA)


def test_nothing_released_costs_nothing_and_more_costs_more() -> None:
    assert epsilon_of({}, DELTA) == 0
    costs = [epsilon_of({Release(4.0): n}, DELTA) for n in (1, 2, 30)]
    assert costs == sorted(costs) and costs[0] > 0


def test_what_protects_nobody_is_told_all_the_same() -> None:
    found = epsilon_of({Release(0.1): 10}, DELTA)
    # Mean and standard deviation of the privacy loss are s^2 / 2 and s, s^2 = T / z^2.
    assert 500 + 4 * math.sqrt(1000) < found <= by_renyi(0.1, 10) * 1.05
