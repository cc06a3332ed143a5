"""``fleet run`` and beside it: what is said of a run that a SuperLink runs.

That a real one starts, stops and tells is tried in ``tests/deployment/test_fleet``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server_app.provisioning import apps
from server_app.provisioning.control_api import (
    ControlAPI,
    FlowerRun,
    UnreachableError,
)
from tests.server_app.provisioning.fleet_operator import Operator

NUMBER = "12345678901234567890"


class Link:
    """Answers in the place of a SuperLink."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.status = ["running", "finished:completed"]
        self.written = [("first\n", 1.0), ("second\n", 2.0)]
        self.asked: list[Any] = []
        for name in ("start", "stop", "runs", "log"):
            answer = getattr(self, name)
            monkeypatch.setattr(
                ControlAPI, name, lambda _, *given, answer=answer: answer(*given)
            )
        monkeypatch.setattr(
            "server_app.provisioning.fleet_runs.time.sleep", self.asked.append
        )

    def start(self, spec: str, config: dict[str, Any]) -> str:
        self.asked.append((spec, config))
        return NUMBER

    def stop(self, number: str) -> None:
        self.asked.append(f"stop {number}")

    def runs(self) -> list[FlowerRun]:
        status = self.status.pop(0) if len(self.status) > 1 else self.status[0]
        when = "2026-11-30T10:00:00.123456+00:00"
        return [FlowerRun(number=NUMBER, status=status, submitted=when)]

    def log(self, number: str, since: float) -> Iterator[tuple[str, float]]:
        self.asked.append(since)
        for text, until in self.written:
            if until > since:
                yield text, until
                if len(self.asked) == 1:
                    raise UnreachableError("no SuperLink answers at lab:1")


@pytest.fixture
def link(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> Link:
    operator.init()
    return Link(monkeypatch)


def test_a_log_is_followed_to_its_end_and_over_a_gap(
    operator: Operator, link: Link
) -> None:
    said = operator.types("log", NUMBER)
    # The line that had come is not shown again.
    assert said == "first\nsecond\n"
    assert link.asked == [0.0, 2.0, 1.0, 2.0, 2.0]
    assert operator.warned.count("waiting for it") == 1
    assert f"run {NUMBER} finished:completed" in operator.warned
    link.status = ["finished:failed"]
    operator.types("log", code=1)
    assert f"run {NUMBER} finished:failed" in operator.warned


def test_ctrl_c_leaves_it_going(
    operator: Operator, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ControlAPI, "log", interrupted)
    said = operator.types("log", NUMBER, code=130)
    assert f"run {NUMBER} goes on: `fleet log {NUMBER}` shows it, " in said
    assert not [each for each in link.asked if str(each).startswith("stop")]


def test_what_is_wrong_is_said_before_anything_is_sent(
    operator: Operator, link: Link, tmp_path: Path
) -> None:
    run = ("run", "--run-config")
    said = operator.types(*run, "num-round=3", code=2)
    assert said == "error: unknown setting 'num-round'; did you mean 'num-rounds'?\n"
    assert "num-rounds" in operator.types(*run, "num-rounds=0", code=2)
    assert "cannot read 'x y'" in operator.types(*run, "x y", code=2)
    assert "no pyproject.toml in" in operator.types("run", str(tmp_path), code=2)
    assert "is no number of a run" in operator.types("stop", "seven", code=2)
    assert link.asked == []


def test_a_run_is_started_and_stopped(
    operator: Operator, link: Link, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    file.write_text("num-rounds = 3\n")
    offered = []
    hub = apps.hub

    def seen(app: apps.SignedApp, address: str) -> Any:
        offered.append(address)
        return hub(app, "127.0.0.1:0")

    monkeypatch.setattr(apps, "hub", seen)
    assert operator.types("run", "--detach", "--run-config", str(file)) == f"{NUMBER}\n"
    [(spec, config)] = link.asked
    assert spec.startswith("@expertfleet/expertfleet==")
    assert config == {"num-rounds": 3}
    assert offered == [operator.fleet.members().apps]
    assert operator.types("stop", NUMBER) == f"run {NUMBER} is stopped\n"
    assert link.asked[-1] == f"stop {NUMBER}"
    link.status = ["finished:stopped"]
    header, row = operator.types("runs").splitlines()
    assert header.split() == ["run", "submitted", "finished", "status"]
    assert row.split() == [NUMBER, "2026-11-30", "10:00:00", "-", "finished:stopped"]
