"""Which sums the settings ask for."""

import re
from typing import Any

import pytest

from common.errors import SettingsError
from common.settings import Settings
from server_app.merging.buffers import Buffers
from server_app.merging.means import PartMeans
from server_app.merging.new_sums import new_sums
from server_app.merging.noisy_sums import PrivateSums

LATE = {"late-replies": "merge"}
BUFFERED = {"schedule": "buffered"}
PRIVATE = {"privacy": "central", "noise-multiplier": 1.0}


@pytest.mark.parametrize("adds_up", [True, False])
@pytest.mark.parametrize(
    ("config", "kind"),
    [({}, PartMeans), (PRIVATE, PrivateSums)],
)
def test_a_round_of_its_own_is_open_to_every_strategy(
    config: dict[str, Any], kind: type, adds_up: bool
) -> None:
    settings = Settings.from_run_config(config)
    assert type(new_sums(settings, "mine", adds_up=adds_up)) is kind


@pytest.mark.parametrize("config", [LATE, BUFFERED])
def test_replies_of_other_rounds_are_kept_in_buffers(config: dict[str, Any]) -> None:
    settings = Settings.from_run_config(config)
    assert type(new_sums(settings, "mine", adds_up=True)) is Buffers


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LATE, ("late-replies = 'merge'", "drop")),
        (BUFFERED, ("schedule = 'buffered'", "synchronous")),
        (LATE | BUFFERED, ("schedule = 'buffered'", "synchronous")),
    ],
)
def test_who_merges_one_round_s_replies_together_is_told_what_to_leave(
    config: dict[str, Any], said: tuple[str, str]
) -> None:
    text = (
        f"{said[0]} is not allowed with strategy 'mine', which merges the replies of "
        f"one round together: leave it at '{said[1]}'"
    )
    settings = Settings.from_run_config(config)
    with pytest.raises(SettingsError, match=f"^{re.escape(text)}$"):
        new_sums(settings, "mine", adds_up=False)
