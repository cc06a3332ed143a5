"""Fine-tuning is for own use: what is sent does not know of it."""

import numpy as np

from common.local_method import LocalMethod
from tests.client_app.local.support import (
    LR,
    given_of,
    gradient,
    initial,
    order_of,
    parts_of,
    run,
    sent_by,
    session_of,
    whole,
)

SESSION = session_of()


def test_two_steps_more_by_hand() -> None:
    given = given_of(SESSION, order_of(method="fine-tune", personal_epochs=2))
    trained = run(given)
    w = initial(SESSION)
    sent = -LR * gradient(SESSION, w)
    np.testing.assert_allclose(whole(trained.changes), sent, atol=1e-6)
    for _ in range(3):
        w = w - LR * gradient(SESSION, w)
    np.testing.assert_allclose(parts_of(given.model), w, atol=1e-5)
    assert trained.kept is None


def test_no_epochs_are_plain_training() -> None:
    plain = given_of(SESSION, order_of())
    tuned = given_of(SESSION, order_of(method="fine-tune"))
    np.testing.assert_array_equal(sent_by(plain), sent_by(tuned))
    np.testing.assert_array_equal(parts_of(plain.model), parts_of(tuned.model))


def test_passes() -> None:
    assert LocalMethod(method="fine-tune", personal_epochs=3).passes(2) == 5
