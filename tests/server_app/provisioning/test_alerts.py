"""Alerts: what is wrong, told once, by a command that can do no harm."""

import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from server_app.provisioning.alerts import Alarm, alerts
from server_app.provisioning.control_api import FlowerRun
from server_app.provisioning.known_nodes import KnownNodes
from server_app.provisioning.run_status import DeviceRecord, RunStatus
from server_app.provisioning.status import DeviceStatus, FleetStatus
from server_app.provisioning.validity import Ending
from tests.server_app.provisioning.fleet_operator import Operator

TELL = 'cat >> "$LINES"; echo "$EXPERTFLEET_ALERT $EXPERTFLEET_ABOUT" >> "$NAMES"'


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def device(name: str, state: str = "online", age: float | None = 5.0) -> DeviceStatus:
    return DeviceStatus(
        name=name, state=state, expected=True, age=age, record=DeviceRecord(name)
    )


def run_of(**changes: Any) -> RunStatus:
    given: dict[str, Any] = {
        "path": Path("results/run-1"),
        "name": "run-1",
        "state": "running",
        "why": "",
        "flower_run": "17",
        "round": 3,
        "rounds": 10,
        "ended": "2026-11-30T10:00:00Z",
        "last": {},
        "devices": {},
    }
    return RunStatus(**{**given, **changes})


def status_of(*devices: DeviceStatus, **changes: Any) -> FleetStatus:
    given: dict[str, Any] = {
        "time": 1_790_000_000.0,
        "nodes": KnownNodes(address="lab:8001"),
        "run": run_of(),
        "devices": list(devices),
    }
    return FleetStatus(**{**given, **changes})


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LINES", str(tmp_path / "lines"))
    monkeypatch.setenv("NAMES", str(tmp_path / "names"))
    return tmp_path / "names"


def lines(told: Path) -> list[str]:
    return told.read_text().splitlines() if told.exists() else []


def test_a_missing_device_is_told_once_and_again_when_it_is_lost_again(
    told: Path,
) -> None:
    clock = Clock()
    alarm = Alarm(TELL, after=120.0, clock=clock)
    well = status_of(device("pi0"), device("pi1"))
    gone = status_of(device("pi0"), device("pi1", "offline", age=70.0))
    alarm(gone)
    assert lines(told) == []  # it may be starting again
    longer = status_of(device("pi0"), device("pi1", "offline", age=130.0))
    alarm(longer)
    alarm(longer)
    assert lines(told) == ["device-missing pi1"]
    # While nobody can say whether it is back, nothing has ended.
    silent = KnownNodes(address="lab:8001", problem="no SuperLink answers at lab:8001")
    alarm(status_of(device("pi0", "unknown", None), nodes=silent))
    alarm(longer)
    assert lines(told) == ["device-missing pi1"]
    alarm(well)
    alarm(longer)
    assert lines(told) == ["device-missing pi1"] * 2
    said = [json.loads(x) for x in (told.parent / "lines").read_text().splitlines()]
    assert said[0] == {
        "version": 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_790_000_000)),
        "alert": "device-missing",
        "about": "pi1",
        "text": "pi1 is missing: offline, last heard of 130 s ago",
        "run": "run-1",
        "run_path": str(Path("results/run-1").absolute()),
        "facts": {"state": "offline", "last_round": None},
    }


def test_one_that_never_came_is_missing_from_the_first_look_on(told: Path) -> None:
    clock = Clock()
    alarm = Alarm(TELL, after=120.0, clock=clock)
    never = status_of(device("pi0", "registered", None))
    alarm(never)
    clock.now += 119
    alarm(never)
    assert lines(told) == []
    clock.now += 1
    alarm(never)
    assert lines(told) == ["device-missing pi0"]


def kinds(status: FleetStatus) -> list[tuple[str, str]]:
    return [each.key for each in alerts(status)]


def test_what_is_wrong() -> None:
    assert kinds(status_of(device("pi0"))) == []
    silent = KnownNodes(address="lab:8001", problem="no SuperLink answers at lab:8001")
    assert kinds(status_of(nodes=silent)) == [("superlink-silent", "lab:8001")]
    for state in ("failed", "died"):
        assert kinds(status_of(run=run_of(state=state))) == [("run-failed", "run-1")]
    for state in ("running", "complete", "stopped"):
        assert kinds(status_of(run=run_of(state=state))) == []
    ends = Ending(what="the authority", days=3, cure="`fleet renew --ca`")
    fine = Ending(what="the server's certificate", days=300)
    found = [*alerts(status_of(certificates=[ends, fine]))]
    assert [each.key for each in found] == [("certificate-ends", "the authority")]
    assert found[0].text == "the authority ends in 3 days: `fleet renew --ca`"
    # No fleet is kept here: a run alone is watched all the same.
    assert kinds(status_of(nodes=None, run=run_of(state="failed"))) != []


@pytest.mark.parametrize(
    ("word", "state", "wrong"),
    [
        ("finished:stopped", "died", False),  # `fleet stop`
        ("finished:failed", "running", True),  # Flower knows before the files do
        ("finished:failed", "died", True),
        ("running", "running", False),
        ("", "died", True),
    ],
)
def test_a_run_that_somebody_stopped_has_not_failed(
    word: str, state: str, wrong: bool
) -> None:
    runs = [FlowerRun(number="17", status=word)] if word else []
    nodes = KnownNodes(address="lab:8001", runs=runs)
    found = kinds(status_of(nodes=nodes, run=run_of(state=state)))
    assert found == ([("run-failed", "run-1")] if wrong else [])


def test_most_replies_were_refused() -> None:
    def last(accepted: int, refused: int) -> RunStatus:
        clients = [{"replied": True}] * accepted + [{"replied": False}] * refused
        return run_of(last={"clients": clients, "refused": refused, "rejected": {}})

    assert kinds(status_of(run=last(2, 2))) == []
    assert kinds(status_of(run=last(2, 3))) == [("replies-refused", "run-1")]


def test_a_command_that_cannot_do_it(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    failed = status_of(run=run_of(state="failed", why="disk full"))
    Alarm("no-such-command-here")(failed)
    said = capfd.readouterr().err
    assert "alert: run-1 failed after round 3 of 10: disk full" in said
    assert "warning: --on-alert ended with code 127: " in said
    assert "no-such-command-here" in said
    Alarm("echo no mail today; exit 3")(failed)
    assert "ended with code 3: no mail today" in capfd.readouterr().err
    # It hangs with what it has started.
    Alarm(f"sleep 600 & echo $! > {tmp_path}/pid; wait", timeout=3.0)(failed)
    assert "was killed: it did not end within 3 s" in capfd.readouterr().err
    child = int((tmp_path / "pid").read_text())
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(child)
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)
    # It leaves something behind that keeps its output open: nobody waits for that.
    Alarm("sleep 2 & exit 0", timeout=60.0)(failed)
    assert "warning" not in capfd.readouterr().err


def test_it_is_run_by_the_watch(
    operator: Operator,
    tmp_path: Path,
    told: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operator.init()
    (tmp_path / "run").mkdir()
    facts = {"run": "run", "settings": {"num-rounds": 4}, "state": "failed"}
    (tmp_path / "run/run.json").write_text(json.dumps(facts))
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("server_app.provisioning.watcher.time.sleep", sleep)
    given = ("status", str(tmp_path / "run"), "--on-alert", TELL)
    operator.types(*given, "--watch", "--alert-after", "3600", code=130)
    assert lines(told) == ["run-failed run"]
    assert "--on-alert goes with --watch" in operator.types(*given, code=2)
    said = operator.types(*given, "--watch", "--alert-after", "-1", code=2)
    assert "--alert-after -1 is not allowed: at least 0" in said


def test_the_page_names_every_alert() -> None:
    page = (Path(__file__).parents[3] / "docs/watch-a-fleet.md").read_text()
    silent = KnownNodes(address="lab:8001", problem="away")
    last = {"clients": [], "refused": 1}
    wrong = status_of(
        device("pi0", "offline"),
        nodes=silent,
        run=run_of(state="failed", last=last),
        certificates=[Ending(what="the authority", days=3, cure="x")],
    )
    found = {each.kind for each in alerts(wrong)}
    assert len(found) == 5
    assert all(f"| `{kind}` |" in page for kind in found)
    unused = replace(wrong, run=None)
    assert len([*alerts(unused)]) == 3
