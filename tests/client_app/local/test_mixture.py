"""APFL: w as in FedAvg, v by the gradient at the mixture, alpha by its own."""

import numpy as np
import pytest

from client_app.local import mixture
from common.cost import training_copies
from common.local_method import LocalMethod
from common.moe import Vector
from common.settings.training_settings import TrainingSettings
from tests.client_app.local.support import (
    DENSE,
    LR,
    given_of,
    gradient,
    initial,
    kept_by,
    order_of,
    parts_of,
    run,
    sent_by,
    session_of,
    whole,
)

SESSION = session_of()


def with_alpha(v: Vector, alpha: float) -> Vector:
    return np.append(v, np.float32(alpha)).astype(np.float32)


def test_a_first_round_by_hand() -> None:
    w = initial(SESSION)
    order = order_of(method="apfl", mixing=0.25)
    given = given_of(SESSION, order)
    trained = run(given)
    # v = w: the mixture is w, and alpha has no reason to move.
    slope = gradient(SESSION, w)
    v, w_c = w - LR * 0.25 * slope, w - LR * slope
    np.testing.assert_allclose(whole(trained.changes), w_c - w, atol=1e-6)
    assert trained.kept is not None
    np.testing.assert_allclose(trained.kept, with_alpha(v, 0.25), atol=1e-6)
    assert mixture.size(given.model.spec, order) == len(trained.kept)
    answers = 0.25 * v + 0.75 * w_c
    np.testing.assert_allclose(parts_of(given.model), answers, atol=1e-6)


@pytest.mark.parametrize("adaptive", [True, False])
def test_a_later_round_by_hand(adaptive: bool) -> None:
    w, alpha = initial(SESSION), 0.5
    v = w - 4 * gradient(SESSION, w)
    order = order_of(method="apfl", mixing=0.1, adaptive=adaptive)
    trained = run(given_of(SESSION, order, with_alpha(v, alpha)))
    slope = gradient(SESSION, alpha * v + (1 - alpha) * w)
    moved = alpha - LR * float((v - w) @ slope)
    assert 0 < moved < 1 and abs(moved - alpha) > 1e-3
    # v moves with the alpha it was mixed with; its own start is not asked any more.
    expected = with_alpha(v - LR * alpha * slope, moved if adaptive else alpha)
    assert trained.kept is not None
    np.testing.assert_allclose(trained.kept, expected, atol=1e-4)
    sent = -LR * gradient(SESSION, w)
    np.testing.assert_allclose(whole(trained.changes), sent, atol=1e-6)


def test_alpha_is_learnt_once_a_round_and_stays_between_0_and_1() -> None:
    w = initial(SESSION)
    v = w + 100 * gradient(SESSION, w)  # far up the slope: away from it at once
    order = order_of(method="apfl", mixing=0.5)
    assert kept_by(given_of(SESSION, order, with_alpha(v, 0.9)))[-1] == 0
    several = session_of(**{"batch-size": 7})
    kept = with_alpha(w - gradient(SESSION, w), 0.5)
    once = kept_by(given_of(several, order, kept))
    more = session_of(**{"batch-size": 7, "local-epochs": 3})
    again = kept_by(given_of(more, order, kept))
    assert again[-1] == once[-1] != 0.5


def test_alpha_0_is_plain_training_of_the_shared_model() -> None:
    plain = given_of(SESSION, order_of())
    mixed = given_of(SESSION, order_of(method="apfl", adaptive=False))
    np.testing.assert_array_equal(sent_by(plain), sent_by(mixed))
    np.testing.assert_array_equal(parts_of(plain.model), parts_of(mixed.model))


def test_alpha_1_is_local_training() -> None:
    config = {"batch-size": 7, "momentum": 0.9}
    order = order_of(method="apfl", mixing=1.0, adaptive=False)
    mixed = given_of(session_of(**config), order)
    kept = kept_by(mixed)
    alone = kept_by(given_of(session_of(**config), order_of(private_parts=DENSE)))
    np.testing.assert_array_equal(kept[:-1], alone)
    np.testing.assert_array_equal(parts_of(mixed.model), alone)


def test_without_training_the_client_answers_with_the_mixture() -> None:
    w = initial(SESSION)
    given = given_of(
        SESSION, order_of(method="apfl", train=False), with_alpha(w + 1, 0.25)
    )
    mixture.recall(given)
    np.testing.assert_allclose(parts_of(given.model), w + 0.25, rtol=1e-5, atol=1e-5)


def test_cost() -> None:
    method = LocalMethod(method="apfl", mixing=0.5)
    assert method.passes(2) == 4
    # Momentum of both models; plain training has one.
    assert training_copies(TrainingSettings(), method) - 1 == 7
