"""The budget of a run: refused, spent, written down and read again."""

from typing import Any

import pytest

from common.accountant import Release, epsilon_of
from common.errors import SettingsError
from common.settings.privacy_settings import PrivacySettings
from server_app.privacy.spending import PrivacyBudget


def budget(**changes: Any) -> PrivacyBudget:
    fields: dict[str, Any] = {"privacy": "central", "noise_multiplier": 4.0, **changes}
    return PrivacyBudget(PrivacySettings(**fields))


def test_no_round_follows_that_would_exceed_the_most() -> None:
    costs = [epsilon_of({Release(4.0): n}, 1e-5) for n in range(1, 6)]
    spent = budget(max_epsilon=(costs[2] + costs[3]) / 2)
    for cost in costs[:3]:
        assert spent.exhausted() == ""
        spent.charge()
        assert spent.epsilon == cost
    assert "one more would make it" in spent.exhausted()
    assert f"max-epsilon is {(costs[2] + costs[3]) / 2:g}" in spent.exhausted()


def test_the_most_itself_may_be_spent() -> None:
    assert budget(max_epsilon=epsilon_of({Release(4.0): 1}, 1e-5)).exhausted() == ""


def test_a_budget_that_pays_for_no_round_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"max-epsilon = 0\.1 is not allowed: one"):
        budget(max_epsilon=0.1)


def test_without_a_most_nothing_ends() -> None:
    spent = budget(max_epsilon=0.0)
    for _ in range(50):
        spent.charge()
    assert spent.exhausted() == ""


def test_charges_and_checkpoint_count_by_whichever_says_more() -> None:
    first = budget(sampling_rate=0.25)
    lines = [first.charge() for _ in range(3)]
    state = first.state()
    assert first.spent == {Release(4.0, 0.25): 3}
    for written, kept, total in (
        (lines, {}, 3),
        ([], state, 3),
        (lines[:1], state, 3),
        ([*lines, *lines], state, 6),
        ([*lines, {}], state, 4),  # damaged: paid for
        ([{"noise_multiplier": "x", "rate": 1}], {}, 1),
    ):
        again = budget(sampling_rate=0.25)
        again.restore(written, kept)
        assert again.spent == {Release(4.0, 0.25): total}
