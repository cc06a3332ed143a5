"""FedRep: the head with the body frozen, then the body with the head frozen."""

import numpy as np
import pytest

from common.local_method import LocalMethod
from tests.client_app.local.support import (
    DENSE,
    LR,
    given_of,
    gradient,
    initial,
    order_of,
    parts_of,
    run,
    sent_by,
    session_of,
)

SESSION = session_of()
HEAD = ["expert.0"]


def test_one_step_of_the_head_and_then_one_of_the_body() -> None:
    order = order_of(method="alternating", personal_epochs=1, private_parts=HEAD)
    given = given_of(SESSION, order)
    trained = run(given)
    body = SESSION.spec.dense().size("extractor")
    w = initial(SESSION)
    first = w.copy()
    first[body:] -= LR * gradient(SESSION, w)[body:]
    second = first.copy()
    second[:body] -= LR * gradient(SESSION, first)[:body]
    np.testing.assert_allclose(parts_of(given.model), second, atol=1e-6)
    np.testing.assert_allclose(
        trained.changes["extractor"], (second - w)[:body], atol=1e-6
    )
    assert trained.kept is not None
    np.testing.assert_array_equal(trained.kept, parts_of(given.model)[body:])
    assert all(p.requires_grad for p in given.model.parameters())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_all_parts_private_it_is_local_training(momentum: float) -> None:
    config = {"momentum": momentum, "batch-size": 7}
    order = order_of(method="alternating", personal_epochs=3, private_parts=DENSE)
    heads = given_of(session_of(**config), order)
    alone = given_of(
        session_of(**config, **{"local-epochs": 3}), order_of(private_parts=DENSE)
    )
    found = [run(given) for given in (heads, alone)]
    assert found[0].changes == found[1].changes == {}
    assert found[0].kept is not None and found[1].kept is not None
    np.testing.assert_array_equal(found[0].kept, found[1].kept)


def test_with_no_part_private_it_is_plain_training() -> None:
    alternating = given_of(SESSION, order_of(method="alternating", personal_epochs=3))
    plain = given_of(SESSION, order_of())
    np.testing.assert_array_equal(sent_by(alternating), sent_by(plain))


def test_passes() -> None:
    # Two epochs of the body, and nine that go a third of the way.
    method = LocalMethod(method="alternating", personal_epochs=9)
    assert method.passes(2) == pytest.approx(5)
