"""What is spent of a privacy budget: kept before it is used, never forgotten."""

import json
import math
from pathlib import Path

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from client_app.kept.spent import Spent
from common.accountant import Release
from common.errors import SettingsError
from common.settings.privacy_settings import PrivacySettings
from tests.client_app.homes import home_of

RULES = PrivacySettings(max_epsilon=3.0, delta=1e-5)
EVERYBODY = Release(10.0, 1.0)


def spent(folder: Path, rules: PrivacySettings = RULES, client: str = "pi0") -> Spent:
    return Spent(home_of(folder, client).privacy(), rules)


def gaussians(multiplier: float, times: int, delta: float) -> float:
    """Epsilon of Gaussians without sampling, exactly (Balle & Wang, ICML 2018)."""
    mu = math.sqrt(times) / multiplier

    def excess(epsilon: float) -> float:
        upper = norm.cdf(mu / 2 - epsilon / mu)
        return float(
            upper - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu) - delta
        )

    return float(brentq(excess, 1e-6, 50))


def test_it_costs_what_so_many_gaussians_cost(tmp_path: Path) -> None:
    here = spent(tmp_path)
    here.charge(EVERYBODY, 20)
    here.charge(EVERYBODY, 5)
    assert (
        gaussians(10.0, 25, 1e-5) <= here.epsilon() <= 1.2 * gaussians(10.0, 25, 1e-5)
    )


def test_drawing_samples_by_chance_costs_what_the_library_says(tmp_path: Path) -> None:
    from dp_accounting import GaussianDpEvent, NeighboringRelation
    from dp_accounting import PoissonSampledDpEvent as Sampled
    from dp_accounting.pld import PLDAccountant

    here = spent(tmp_path)
    here.charge(Release(2.0, 0.1), 30)
    here.charge(Release(2.0, 0.05), 30)
    direct = PLDAccountant(NeighboringRelation.REPLACE_SPECIAL)
    direct.compose(Sampled(0.1, GaussianDpEvent(2.0)), 30)
    direct.compose(Sampled(0.05, GaussianDpEvent(2.0)), 30)
    exact = direct.get_epsilon(1e-5)
    assert 0.99 * exact <= here.epsilon() <= 1.3 * exact


def test_it_outlives_the_process_and_the_run(tmp_path: Path) -> None:
    spent(tmp_path).charge(EVERYBODY, 20)
    again = spent(tmp_path)
    assert again.releases == {EVERYBODY: 20}
    again.charge(Release(10.0, 0.5), 3)
    assert spent(tmp_path).releases == {EVERYBODY: 20, Release(10.0, 0.5): 3}
    [file] = tmp_path.rglob("*.json")
    assert json.loads(file.read_bytes())["epsilon"] == pytest.approx(again.epsilon())
    # Another client of the same machine has a budget of its own.
    assert not spent(tmp_path, client="pi1").releases


def test_without_a_directory_it_is_kept_with_the_node() -> None:
    home = home_of()
    Spent(home.privacy(), RULES).charge(EVERYBODY, 2)
    assert Spent(home.privacy(), RULES).releases == {EVERYBODY: 2}


def test_no_more_is_spent_than_may_be(tmp_path: Path) -> None:
    rounds, here = 0, spent(tmp_path)
    with pytest.raises(SettingsError, match="trains no more") as refused:
        while True:
            here.charge(EVERYBODY, 5)
            rounds += 1
    # 5 steps more would be above 3, and nothing was written of them.
    assert (
        gaussians(10.0, 5 * rounds, 1e-5) <= 3 < gaussians(10.0, 5 * rounds + 5, 1e-5)
    )
    assert spent(tmp_path).releases == {EVERYBODY: 5 * rounds}
    # The server reads that line: it has no number in it.
    assert not any(c.isdigit() for c in str(refused.value))
    free = spent(tmp_path, RULES.model_copy(update={"max_epsilon": 0.0}))
    free.charge(EVERYBODY, 500)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"spent": [[0, 1, 3]]}', b'{"spent": [[1, 0.1, -3]]}'],
)
def test_a_damaged_record_is_not_taken_for_none(tmp_path: Path, damage: bytes) -> None:
    spent(tmp_path).charge(EVERYBODY, 2)
    [file] = tmp_path.rglob("*.json")
    file.write_bytes(damage)
    with pytest.raises(SettingsError, match=r"spent\.json, is damaged") as refused:
        spent(tmp_path)
    assert "\n" not in str(refused.value)


def test_what_cannot_be_kept_is_not_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    here = spent(tmp_path)
    monkeypatch.setattr("client_app.kept.store.atomic_write", full)
    with pytest.raises(SettingsError, match="cannot be kept"):
        here.charge(EVERYBODY, 1)
