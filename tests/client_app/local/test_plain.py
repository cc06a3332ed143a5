"""Private parts: trained with the rest, never sent, gone on from."""

import numpy as np

from client_app.local import plain
from tests.client_app.local.support import (
    DENSE,
    LR,
    given_of,
    gradient,
    initial,
    order_of,
    parts_of,
    run,
    session_of,
    whole,
)

SESSION = session_of()


def test_an_epoch_of_one_batch_is_one_step() -> None:
    trained = run(given_of(SESSION, order_of()))
    expected = -LR * gradient(SESSION, initial(SESSION))
    np.testing.assert_allclose(whole(trained.changes), expected, atol=1e-6)
    assert trained.kept is None


def test_a_private_head_is_trained_jointly_and_kept_in_place_of_being_sent() -> None:
    order = order_of(private_parts=["expert.0"])
    given = given_of(SESSION, order)
    trained = run(given)
    stepped = initial(SESSION) - LR * gradient(SESSION, initial(SESSION))
    body = SESSION.spec.dense().size("extractor")
    assert list(trained.changes) == ["extractor"]
    np.testing.assert_allclose(
        trained.changes["extractor"], (stepped - initial(SESSION))[:body], atol=1e-6
    )
    assert trained.kept is not None
    np.testing.assert_allclose(trained.kept, stepped[body:], atol=1e-6)
    assert plain.size(given.model.spec, order) == len(trained.kept)
    # The next round starts from it, whatever body is received.
    body_now = {"extractor": np.zeros(body, np.float32)}
    again = given_of(SESSION, order, trained.kept, body_now)
    plain.recall(again)
    np.testing.assert_array_equal(parts_of(again.model)[body:], trained.kept)
    np.testing.assert_array_equal(parts_of(again.model)[:body], 0)


def test_a_share_is_kept_of_what_is_shared_and_all_of_what_is_private() -> None:
    whole_of_it = given_of(SESSION, order_of(private_parts=["expert.0"]))
    sent = run(whole_of_it).changes["extractor"]
    nothing = order_of(private_parts=["expert.0"], keep_share=0.0)
    given = given_of(SESSION, nothing)
    trained = run(given)
    np.testing.assert_array_equal(trained.changes["extractor"], sent)
    body = len(sent)
    np.testing.assert_array_equal(parts_of(given.model)[:body], initial(SESSION)[:body])
    np.testing.assert_array_equal(
        parts_of(given.model)[body:], parts_of(whole_of_it.model)[body:]
    )


def test_batch_norms_stay_with_their_running_statistics() -> None:
    session = session_of(backbone="cnn", norm="batch")
    given = given_of(session, order_of(private_parts=["norm"]))
    before = given.model.vectors(["norm"])["norm"]
    trained = run(given)
    assert list(trained.changes) == DENSE
    spec = session.spec.dense()
    assert trained.kept is not None
    values = trained.changes["extractor"].size + trained.kept.size
    assert values == spec.size("extractor")
    # Means and variances moved, not only scales and shifts.
    moved = np.split((trained.kept != before), [2 * (32 + 64 + 128)])
    assert all(part.mean() > 0.5 for part in moved)
