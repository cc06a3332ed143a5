"""The best round, and when a model has collapsed: counted by hand."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import SettingsError
from common.settings import Settings
from server_app.rounds.best import Best, Collapse
from tests.server_app.run_folder.support import record_of


def line(number: int, refused: int = 0, accepted: int = 5, **values: Any) -> Any:
    clients = [{"replied": k < accepted} for k in range(5)]
    return {"round": number, "refused": refused, "clients": clients, **values}


def collapse(classes: int = 10, by_devices: bool = False, **config: Any) -> Collapse:
    settings = Settings.from_run_config(
        {key.replace("_", "-"): value for key, value in config.items()}
    )
    return Collapse(settings.run, classes, by_devices=by_devices)


def judged(watch: Collapse, *values: float | None) -> list[str]:
    name = watch.best.measure
    return [watch.judge({**line(n), name: v}) for n, v in enumerate(values, 1)]


def test_best_is_counted_by_hand() -> None:
    best = Best("server_global", "max")
    for number, value in enumerate([0.1, 0.4, None, 0.4, 0.2], 1):
        best.take(line(number, server_global=value))
    assert (best.value, best.round, best.since) == (0.4, 2, 2)
    best = Best("train_loss", "min")
    for number, value in enumerate([3.0, 1.0, 2.0], 1):
        best.take(line(number, train_loss=value))
    assert (best.value, best.round, best.since) == (1.0, 2, 1)


def test_half_of_what_is_above_guessing_three_times_in_a_row() -> None:
    # Of 0.9 at ten classes, half above guessing is 0.1 + 0.4 = 0.5.
    *quiet, last = judged(collapse(), 0.9, 0.49, 0.3, 0.2)
    assert quiet == ["", "", ""]
    assert last == ("server_global was 0.2 and as low 3 times in a row, 0.9 in round 1")
    assert not any(judged(collapse(), 0.9, 0.51, 0.51, 0.51, 0.51))
    # A round above it, not one without a measure, begins the count anew.
    assert not any(judged(collapse(), 0.9, 0.4, 0.4, 0.6, 0.4, 0.4))
    assert judged(collapse(), 0.9, 0.4, None, 0.4, 0.4)[-1]


def test_of_two_classes_guessing_is_half() -> None:
    # Half of 0.9 above 0.5 is 0.7; 0.45 would be half of 0.9 itself.
    assert judged(collapse(2), 0.9, 0.6, 0.6, 0.6)[-1]
    assert not any(judged(collapse(2), 0.9, 0.71, 0.71, 0.71))


def test_a_model_that_never_knew_more_than_guessing_collapses_not() -> None:
    assert not any(judged(collapse(), 0.08, 0.01, 0.01, 0.01))
    # A quarter of the way from 0.1 to 1 is 0.325.
    assert not any(judged(collapse(), 0.32, 0.1, 0.1, 0.1))
    assert judged(collapse(), 0.33, 0.1, 0.1, 0.1)[-1]


def test_a_loss_that_doubles() -> None:
    watch = collapse(stop_measure="train_loss", stop_mode="min")
    assert judged(watch, 1.0, 2.1, 2.1, 2.1)[-1]
    watch = collapse(stop_measure="train_loss", stop_mode="min")
    assert not any(judged(watch, 1.0, 1.9, 1.9, 1.9))


def test_after_a_collapse_it_is_counted_anew() -> None:
    said = judged(collapse(), 0.9, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2)
    assert [bool(why) for why in said] == [False] * 3 + [True] + [False] * 2 + [True]


def test_most_replies_refused() -> None:
    watch = collapse()
    assert watch.judge(line(1, refused=2, accepted=2)) == ""
    assert watch.judge(line(2, refused=3, accepted=2)) == "3 of 5 replies were refused"


def test_where_devices_measure_it_is_fleet() -> None:
    assert collapse(by_devices=True).best.measure == "fleet"
    other = collapse(by_devices=True, stop_measure="client_local")
    assert other.best.measure == "client_local"


def test_state_goes_on_where_it_was() -> None:
    watch, other = collapse(), collapse()
    judged(watch, 0.9, 0.2, 0.2)
    other.load_state(watch.state())
    assert other.judge(line(4, server_global=0.2))
    assert (other.best.value, other.best.round, other.best.since) == (0.9, 1, 3)
    loss = collapse(stop_measure="train_loss", stop_mode="min")
    loss.load_state(watch.state())  # another measure: nothing of it is known
    assert math.isnan(loss.best.value)
    fresh = collapse()
    fresh.load_state(collapse().state())
    assert fresh.best.round == 0


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(SettingsError, match="did you mean 'server_global'"):
        collapse(stop_measure="server_globl")


def folder_with(best: dict[str, Any] | None) -> Any:
    """Return what a collapse needs of a run's folder."""
    kept: list[int] = []
    return SimpleNamespace(best=lambda: best, keep_best=kept.append, kept=kept)


@pytest.mark.parametrize(
    ("follows", "folder", "state", "then"),
    [
        ("roll-back", folder_with({"completed": 2}), 2, "back to the model of round 2"),
        ("roll-back", folder_with(None), None, "no best round is kept to go back to"),
        ("roll-back", None, None, "no best round is kept to go back to"),
        ("go-on", folder_with({"completed": 2}), None, "on-collapse is go-on"),
    ],
)
def test_what_follows_is_noted(
    follows: str, folder: Any, state: int | None, then: str
) -> None:
    watch, record = collapse(on_collapse=follows), record_of(3, refused=2, clients=[])
    found = watch.look_after(record, folder)
    assert (found and found["completed"]) == state
    assert record.notes == [f"collapsed: 2 of 2 replies were refused; {then}"]
    assert not watch.has_ended_run() and not watch.stopped


def test_a_run_that_ends_there_says_why(caplog: pytest.LogCaptureFixture) -> None:
    watch, record = collapse(on_collapse="stop"), record_of(3, refused=2, clients=[])
    assert watch.look_after(record, folder_with({"completed": 2})) is None
    assert watch.has_ended_run() and record.notes == []
    assert watch.stopped == "collapsed: 2 of 2 replies were refused"
    assert "no round follows: 2 of 2 replies were refused" in caplog.text
    other = collapse(on_collapse="go-on")
    other.stopped = watch.stopped  # as after a resume
    assert not other.has_ended_run()


def test_the_checkpoint_of_the_best_round_alone_is_kept() -> None:
    watch, folder = collapse(), folder_with(None)
    for number, value in enumerate((0.4, 0.6, 0.5), 1):
        watch.judge({**line(number), "server_global": value})
        watch.keep_best(number, folder)
    assert folder.kept == [1, 2]
    fresh = collapse()
    fresh.keep_best(0, folder)  # nothing is done yet
    assert folder.kept == [1, 2]
