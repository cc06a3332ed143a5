"""Callbacks: all are called, one that fails is given up alone, any may end the run."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import SettingsError
from common.settings import Settings
from server_app.callbacks.callbacks import Callbacks
from server_app.callbacks.hooks import Callback, RunStart
from server_app.callbacks.runlog import RunLog
from server_app.commands.simulate import simulate
from server_app.report.pages import run_page
from server_app.report.run_data import read_run
from tests.server_app.run_folder.support import record_of

CALLS: list[str] = []
HOOKS = ("on_run_begin", "on_round_end", "on_run_end")
HERE = __name__
SMALL: dict[str, str | int] = {
    "num-rounds": 3,
    "num-experts": 4,
    "local-epochs": 1,
    "test-samples": 50,
    "train-samples": 200,
}


class Witness(Callback):
    """Notes every call; fails in the hook that its class attribute names."""

    fails = ""
    error: BaseException = ConnectionError("the server is gone\nand more")

    def called(self, hook: str) -> None:
        CALLS.append(f"{type(self).__name__}.{hook}")
        if hook == self.fails:
            raise self.error

    def on_run_begin(self, run: RunStart, strategy: Any) -> str | None:
        assert run.path.is_dir()
        self.called("on_run_begin")
        return None

    def on_round_end(self, record: Any, strategy: Any) -> str | None:
        self.called("on_round_end")
        return None

    def on_run_end(self) -> None:
        self.called("on_run_end")


class First(Witness): ...


class Last(Witness): ...


class Enough(Callback):
    """Wants no third round."""

    def on_round_end(self, record: Any, strategy: Any) -> str | None:
        return "two rounds will do" if record.round == 2 else None


class Never(Callback):
    """Wants no round at all."""

    def on_run_begin(self, run: RunStart, strategy: Any) -> str | None:
        return "there is nothing to do"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    CALLS.clear()
    yield
    First.fails = ""


def trained(folder: Path, **config: Any) -> tuple[Path, list[dict[str, Any]]]:
    more = {key.replace("_", "-"): value for key, value in config.items()}
    simulate({**SMALL, "output-dir": str(folder), **more}, 3)
    [path] = folder.iterdir()
    return path, [json.loads(line) for line in (path / "metrics.jsonl").open()]


def given_up(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    return [text for text in texts if "callback" in text]


@pytest.mark.parametrize("hook", HOOKS)
def test_one_that_fails_is_given_up_and_the_others_go_on(
    hook: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    First.fails = hook
    _, rounds = trained(tmp_path, callbacks=f"{HERE}:First, {HERE}:Last, {HERE}:First")
    assert [record["round"] for record in rounds] == [1, 2, 3]
    assert given_up(caplog) == [
        f"callback {HERE}:First is given up: ConnectionError: the server is gone"
    ]
    all_of_them = ["on_run_begin", *["on_round_end"] * 3, "on_run_end"]
    assert [c for c in CALLS if c.startswith("Last")] == [
        f"Last.{each}" for each in all_of_them
    ]
    # Nothing is asked of it after the failure.
    until = all_of_them.index(hook) + 1
    assert [c for c in CALLS if c.startswith("First")] == [
        f"First.{each}" for each in all_of_them[:until]
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("hook", HOOKS)
def test_an_interrupt_in_a_callback_is_one_of_the_run(
    hook: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    First.fails = hook
    monkeypatch.setattr(First, "error", error)
    with pytest.raises(type(error)):
        trained(tmp_path, callbacks=f"{HERE}:First")
    # Nobody holds the directory any more.
    [path] = tmp_path.iterdir()
    First.fails = ""
    simulate({**SMALL, "resume-from": str(path), "callbacks": f"{HERE}:First"}, 3)
    assert [record["round"] for record in read_run(path).rounds] == [1, 2, 3]


def test_a_round_is_on_the_disk_before_a_callback_hears_of_it(tmp_path: Path) -> None:
    First.fails = "on_round_end"
    seen = []

    class Reader(Callback):
        def on_run_begin(self, run: RunStart, strategy: Any) -> None:
            self.path = run.path

        def on_round_end(self, record: Any, strategy: Any) -> None:
            lines = (self.path / "metrics.jsonl").read_text().splitlines()
            newest = json.loads(lines[-1])["round"]
            kept = (self.path / "checkpoints").glob("round-*")
            seen.append((record.round, newest, len(list(kept))))

    globals()["Reader"] = Reader
    trained(tmp_path, callbacks=f"{HERE}:Reader")
    assert seen == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


def test_one_that_has_enough_ends_the_run_as_complete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, rounds = trained(tmp_path, callbacks=f"{HERE}:Enough, {HERE}:Last")
    why = f"{HERE}:Enough: two rounds will do"
    assert [record["round"] for record in rounds] == [1, 2]
    assert CALLS.count("Last.on_round_end") == 2 and CALLS[-1] == "Last.on_run_end"
    assert (path / "model.safetensors").exists()
    assert json.loads((path / "run.json").read_text())["stopped"] == why
    assert f"no round follows: {why}" in caplog.text
    run = read_run(path)
    assert (run.state, run.why) == ("complete", why) and why in run_page(run)


def test_a_run_that_was_stopped_goes_on_without_who_stopped_it(tmp_path: Path) -> None:
    path, _ = trained(tmp_path, callbacks=f"{HERE}:Enough")
    simulate({**SMALL, "resume-from": str(path)}, 3)
    assert [record["round"] for record in read_run(path).rounds] == [1, 2, 3]
    assert read_run(path).why == ""


def test_one_can_say_at_once_that_no_round_is_needed(tmp_path: Path) -> None:
    path, _ = trained(tmp_path, num_rounds=1)
    before = (path / "metrics.jsonl").read_bytes()
    (path / "model.safetensors").unlink()
    again = {**SMALL, "resume-from": str(path), "callbacks": f"{HERE}:Never"}
    simulate(again, 3)
    assert (path / "metrics.jsonl").read_bytes() == before
    assert (path / "model.safetensors").exists()


def test_what_is_no_callback_is_refused() -> None:
    for name in ("json:dumps", f"{HERE}:HOOKS"):
        settings = Settings.from_run_config({"callbacks": name})
        with pytest.raises(SettingsError, match="is not a subclass of Callback"):
            Callbacks(settings)


class Unmade(Callback):
    def __init__(self, settings: Settings) -> None:
        raise KeyError("API_KEY")


def test_what_cannot_be_made_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Unmade' cannot be made: KeyError"):
        trained(tmp_path, callbacks=f"{HERE}:Unmade")
    assert list(tmp_path.iterdir()) == []


def test_who_looks_on_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    path, _ = trained(tmp_path, num_rounds=1)
    changed = {"callbacks": f"{HERE}:Last", "stop-measure": "train_loss"}
    changed |= {"stop-mode": "min", "client-metrics": ""}
    simulate({**SMALL, **changed, "resume-from": str(path), "stop-patience": 3}, 3)
    assert CALLS.count("Last.on_round_end") == 2


def test_a_setting_of_before_is_told_its_new_name() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'sinks'.*'callbacks'"):
        Settings.from_run_config({"sinks": "tensorboard"})


def test_reasons_of_several_are_all_told(tmp_path: Path) -> None:
    names = f"{HERE}:Never, {HERE}:Enough"
    settings = Settings.from_run_config(
        {"output-dir": str(tmp_path), "callbacks": names}
    )
    nobody: Any = type("Nobody", (), {"fitness_matrix": lambda self: None})()
    with RunLog(settings) as log:
        log.open(nobody)
        assert log.stopped == f"{HERE}:Never: there is nothing to do"
        log.show(record_of(2), nobody)
        assert log.stopped == f"{HERE}:Enough: two rounds will do"
