"""``fleet status``: who is there and how far a run is, in all its forms."""

import fcntl
import json
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.flower_internals import NodeInfo
from server_app.__main__ import main
from server_app.commands.simulate import simulate
from server_app.provisioning import ProvisioningError
from server_app.provisioning.certificates import openssh_to_pem
from server_app.provisioning.control_api import ControlAPI, FlowerRun
from server_app.provisioning.run_status import read_status, run_folder
from server_app.provisioning.status import MISSING
from tests.server_app.provisioning.fleet_operator import Operator

NAMES = ("client-0", "client-1", "client-2")
HEARTBEAT = 30.0


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("results")
    config = {"num-rounds": 2, "num-experts": 4, "local-epochs": 1, "seed": 3}
    simulate({**config, "output-dir": str(output)}, 3)
    return output


@pytest.fixture
def run(output: Path, tmp_path: Path) -> Path:
    """A run that may be changed: client-0 failed in its second round and rests."""
    source, folder = run_folder(None, output), tmp_path / "run"
    folder.mkdir()
    facts = json.loads((source / "run.json").read_text())
    facts |= {"refused": {"pi9": "runs other code"}, "flower_run": "17"}
    (folder / "run.json").write_text(json.dumps(facts))
    first, second = (source / "metrics.jsonl").read_text().splitlines()
    record = json.loads(second)
    record["clients"][0] |= {"replied": False, "experts": [0, 1, 2, 3]}
    record |= {"rejected": {"client-0": "error 5: gone"}, "resting": {"client-0": 5}}
    half = '{"round": 3, "cli'
    (folder / "metrics.jsonl").write_text(f"{first}\n{json.dumps(record)}\n{half}")
    return folder


@pytest.fixture
def nodes(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> dict[str, NodeInfo]:
    """A fleet of three devices, all online, by the word of a SuperLink."""
    operator.init()
    operator.types("add", *NAMES)
    found = {}
    for name, device in operator.fleet.members().devices.items():
        operator.fleet.bundle_file(name).unlink()
        found[name] = NodeInfo(
            public_key=openssh_to_pem(device.public_key),
            name=name,
            status="online",
            registered_at="2026-11-30T10:00:00+00:00",
            heartbeat_interval=HEARTBEAT,
            online_until=time.time() + 2 * HEARTBEAT - 10,
        )
    monkeypatch.setattr(ControlAPI, "nodes", lambda self: [*found.values()])
    runs = [FlowerRun(number="17", status="running")]
    monkeypatch.setattr(ControlAPI, "runs", lambda self: runs)
    return found


def as_json(operator: Operator, *arguments: str, code: int = 0) -> dict[str, Any]:
    operator.types("status", *arguments, "--format", "json", code=code)
    said: dict[str, Any] = json.loads(operator.said)
    return said


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return what the official client reads: name and values of labels to value."""
    return {
        (each.name, *each.labels.values()): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_what_every_device_holds_and_did(output: Path) -> None:
    folder = run_folder(None, output)
    records = [json.loads(x) for x in (folder / "metrics.jsonl").open()]
    found = read_status(folder)
    assert (found.round, found.rounds, found.state) == (2, 2, "complete")
    device = found.devices["client-1"]
    mine = [c for r in records for c in r["clients"] if c["client"] == "client-1"]
    assert device.experts == mine[-1]["experts"]
    assert device.budget == 2
    assert device.bytes_down == sum(c["bytes_down"] for c in mine)
    assert device.bytes_up == sum(c["bytes_up"] for c in mine)
    assert (device.said, device.last_round) == ("answered", 2)
    assert device.last_reply == records[-1]["ended"]


def test_a_device_that_fails_says_why_and_holds_what_it_held(
    run: Path, output: Path
) -> None:
    found = read_status(run).devices
    first = json.loads((run_folder(None, output) / "metrics.jsonl").open().readline())
    assert found["client-0"].said == "round 2: error 5: gone"
    assert found["client-0"].last_round == 1
    assert found["client-0"].experts == first["clients"][0]["experts"] != [0, 1, 2, 3]
    assert found["client-0"].resting_until == 5
    assert found["pi9"].said == "refused: runs other code"


def test_all_is_well(operator: Operator, nodes: dict[str, NodeInfo], run: Path) -> None:
    lines = operator.types("status", str(run)).splitlines()
    assert ": complete, round 2 of 2, the last one ended " in lines[0]
    assert "Flower's run 17 (running)" in lines[0]
    name, state, age, *unit = lines[2].split()[:5]
    assert (name, state, unit) == ("client-0", "online", ["s", "ago"])
    assert 10 <= int(age) < 60
    assert lines[2].endswith("round 2: error 5: gone; rests until round 5")
    assert "missing" not in operator.said
    found = as_json(operator, str(run))
    assert found["missing"] == []
    assert [d["name"] for d in found["devices"]] == [*NAMES, "pi9"]
    # Resting, and there: nobody is woken for that.
    assert found["devices"][0]["resting_until"] == 5
    assert not found["devices"][0]["missing"]
    assert found["devices"][3]["refused"] == "runs other code"


def test_a_missing_device_is_an_exit_code_in_every_form(
    operator: Operator, nodes: dict[str, NodeInfo], run: Path
) -> None:
    nodes["client-1"].status = "offline"
    nodes["client-1"].online_until = time.time() - 3600 + 2 * HEARTBEAT
    operator.types("status", str(run), code=MISSING)
    assert "client-1  OFFLINE  60 min ago" in operator.said
    assert "\nmissing: client-1\n" in operator.said
    found = as_json(operator, str(run), code=MISSING)
    assert found["missing"] == ["client-1"]
    assert abs(found["devices"][1]["age_seconds"] - 3600) < 60
    operator.types("status", str(run), "--format", "prometheus", code=MISSING)
    read = samples(operator.said)
    assert read["expertfleet_device_missing", "client-1"] == 1
    assert read["expertfleet_device_missing", "client-0"] == 0
    assert read["expertfleet_device_resting", "client-0"] == 1
    assert read["expertfleet_fleet_devices_missing",] == 1
    assert read["expertfleet_fleet_devices_expected",] == 3
    assert read["expertfleet_fleet_round",] == 2
    assert read["expertfleet_fleet_superlink_up",] == 1
    assert read["expertfleet_device_sent_bytes_total", "client-2"] > 0
    # One that is offline is missing, whether or not the run leaves it alone.
    nodes["client-0"].status = "offline"
    assert as_json(operator, code=MISSING)["missing"] == ["client-0", "client-1"]


def test_a_device_is_expected_once_its_bundle_was_taken_to_it(
    operator: Operator, nodes: dict[str, NodeInfo]
) -> None:
    operator.types("add", "pi3")
    found = as_json(operator)["devices"][3]
    assert (found["name"], found["state"]) == ("pi3", "not delivered")
    assert not found["expected"]
    operator.fleet.bundle_file("pi3").unlink()
    found = as_json(operator, code=MISSING)["devices"][3]
    assert (found["state"], found["missing"]) == ("not registered", True)
    assert found["age_seconds"] is None


def test_the_shape_of_the_json(
    operator: Operator, nodes: dict[str, NodeInfo], run: Path
) -> None:
    """Every key is on the page, and nothing on the page is missing."""
    page = (Path(__file__).parents[3] / "docs/watch-a-fleet.md").read_text()
    nodes["x"] = NodeInfo(public_key=b"x", name="pi9", status="online", node_id=7)
    said = as_json(operator, str(run))
    for key, where in (
        ("fleet", said),
        ("run", said["run"]),
        ("superlink", said["superlink"]),
        ("strangers", said["superlink"]["strangers"][0]),
        ("certificates", said["certificates"][0]),
        ("devices", said["devices"][0]),
    ):
        [row] = [x for x in page.splitlines() if x.startswith(f"| **{key}** |")]
        named = row.split("|")[2].replace("`", "").replace(" ", "").split(",")
        assert named == list(where), key
    operator.types("status", str(run), "--format", "prometheus")
    for family in text_string_to_metric_families(operator.said):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"`{name}`" in page


def test_a_superlink_that_does_not_answer_accuses_nobody(
    operator: Operator, run: Path
) -> None:
    operator.init()
    operator.types("add", *NAMES)
    for name in NAMES:
        operator.fleet.bundle_file(name).unlink()
    found = as_json(operator, str(run), code=MISSING)
    assert found["missing"] == []
    assert not found["superlink"]["answers"]
    assert "no SuperLink answers at 127.0.0.1:9" in found["superlink"]["problem"]
    operator.types("status", "--format", "prometheus", code=MISSING)
    read = samples(operator.said)
    assert read["expertfleet_fleet_superlink_up",] == 0
    assert ("expertfleet_device_missing", "client-0") not in read


def test_a_run_that_died(run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "state": "running"}))
    assert read_status(run).state == "died"
    with (run / "lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert read_status(run).state == "running"


def test_which_run_is_meant(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = run_folder(None, output).name
    assert run_folder(Path(name), output) == output / name
    with pytest.raises(ProvisioningError, match="did you mean"):
        run_folder(Path(name + "0"), output)
    with pytest.raises(ProvisioningError, match="no run in"):
        run_folder(None, tmp_path)
    # A researcher has runs and no fleet.
    missing = str(tmp_path / "fleet")
    assert main(["fleet", "--dir", missing, "status", str(output / name)]) == 0
    assert "client-2" in capsys.readouterr().out


def test_a_file_is_whole_or_as_it_was(
    operator: Operator, nodes: dict[str, NodeInfo], run: Path, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.prom"
    given = ("status", str(run), "--format", "prometheus", "--output")
    assert operator.types(*given, str(file)) == ""
    assert samples(file.read_text())["expertfleet_device_up", "client-1"] == 1
    assert file.stat().st_mode & 0o777 == 0o644
    said = operator.types(*given, str(run / "run.json" / "x"), code=2)
    assert said.startswith(f"error: --output {run}/run.json/x: ")


def test_watching(
    operator: Operator,
    nodes: dict[str, NodeInfo],
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    text = (run / "run.json").read_text()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        match len(waited):
            case 1 | 2:
                (run / "run.json").write_text("{")
            case 3:
                (run / "run.json").write_text(text)
                nodes["client-2"].status = "offline"
            case 4:
                raise KeyboardInterrupt

    monkeypatch.setattr("server_app.provisioning.watcher.time.sleep", sleep)
    given = ("status", str(run), "--format", "json", "--watch", "--every", "7")
    warned = operator.types(*given, code=130)
    assert waited == [7, 7, 7, 7]
    # One look, two at a damaged file, one more.
    first, last = (json.loads(line) for line in operator.said.splitlines())
    assert (first["missing"], last["missing"]) == ([], ["client-2"])
    assert warned.count("run.json is damaged") == 1
    assert "--every 0 is not allowed" in operator.types(*given[:-1], "0", code=2)
