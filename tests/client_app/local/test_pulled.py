"""Ditto: w as in FedAvg, v pulled to the w received."""

from typing import Any

import numpy as np
import pytest

from client_app.local import pulled
from common.local_method import LocalMethod
from tests.client_app.local.support import (
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


def ordered(pull: float, epochs: int = 1) -> dict[str, Any]:
    return {"method": "ditto", "pull": pull, "personal_epochs": epochs}


def test_two_rounds_by_hand() -> None:
    w, order = initial(SESSION), order_of(**ordered(2.0))
    given = given_of(SESSION, order)
    first = run(given)
    # v starts from w, where there is no pull.
    v = w - LR * gradient(SESSION, w)
    np.testing.assert_allclose(whole(first.changes), v - w, atol=1e-6)
    assert first.kept is not None
    np.testing.assert_allclose(first.kept, v, atol=1e-6)
    assert pulled.size(given.model.spec, order) == len(v)
    # Another w is received: v goes on from itself, and is pulled to that one.
    other = w + np.float32(0.01)
    body = SESSION.spec.dense().size("extractor")
    received = {"extractor": other[:body], "expert.0": other[body:]}
    given = given_of(SESSION, order, first.kept, received)
    second = run(given)
    sent = -LR * gradient(SESSION, other)
    np.testing.assert_allclose(whole(second.changes), sent, atol=1e-6)
    v = v - LR * (gradient(SESSION, v) + 2.0 * (v - other))
    assert second.kept is not None
    np.testing.assert_allclose(second.kept, v, atol=1e-5)
    # What the client answers with is v.
    np.testing.assert_array_equal(parts_of(given.model), second.kept)


def test_a_larger_lambda_keeps_v_nearer_to_w_and_the_largest_one_step_from_it() -> None:
    w = initial(SESSION)
    far = w + np.float32(0.1)
    pulls = [0.1, 1.0, 5.0, 1 / LR]
    found = [
        kept_by(given_of(SESSION, order_of(**ordered(pull, 5)), far)) for pull in pulls
    ]
    away = [float(np.linalg.norm(v - w)) for v in found]
    assert away == sorted(away, reverse=True)
    # v - lr grad F(v) - (v - w): only the last gradient's step is left of v.
    slope = float(np.linalg.norm(gradient(SESSION, w)))
    assert away[-1] < 1.5 * LR * slope < away[0] / 10


def test_the_pull_changes_nothing_that_is_sent() -> None:
    plain = given_of(SESSION, order_of())
    pulled_too = given_of(SESSION, order_of(**ordered(1.0, 3)))
    np.testing.assert_array_equal(sent_by(plain), sent_by(pulled_too))


def test_without_training_the_client_answers_with_v() -> None:
    v = initial(SESSION) + np.float32(1)
    given = given_of(SESSION, order_of(**ordered(1.0), train=False), v)
    pulled.recall(given)
    np.testing.assert_array_equal(parts_of(given.model), v)


def test_cost() -> None:
    method = LocalMethod(method="ditto", personal_epochs=2, pull=1.0)
    assert method.passes(2) == 4
    assert method.more_copies == 5 + 4  # of two trainings, and to be pulled


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_share_of_what_is_shared_has_no_say_in_v(share: float) -> None:
    whole_of_it, some = (
        kept_by(given_of(SESSION, order_of(**ordered(1.0), keep_share=each)))
        for each in (1.0, share)
    )
    np.testing.assert_array_equal(whole_of_it, some)
