"""The table of a run's devices, from the files a real run leaves."""

import json
from pathlib import Path

import pytest

from server_app.__main__ import main
from server_app.commands.simulate import simulate
from server_app.provisioning import ProvisioningError
from server_app.provisioning.status import devices_of, run_folder, status


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("results")
    config = {"num-rounds": 2, "num-experts": 4, "local-epochs": 1, "seed": 3}
    simulate({**config, "output-dir": str(output)}, 3)
    return output


def test_what_every_device_holds_and_did(output: Path) -> None:
    folder = run_folder(None, output)
    records = [json.loads(x) for x in (folder / "metrics.jsonl").open()]
    device = devices_of(folder)["client-1"]
    mine = [c for r in records for c in r["clients"] if c["client"] == "client-1"]
    assert device.experts == mine[-1]["experts"]
    assert device.budget == 2
    assert device.bytes_down == sum(c["bytes_down"] for c in mine)
    assert device.bytes_up == sum(c["bytes_up"] for c in mine)
    assert (device.state, device.last_round) == ("answered", 2)
    assert device.last_seen == records[-1]["ended"]
    lines = status(folder, {"client-1": "online", "pi9": "offline"}).splitlines()
    assert lines[0] == folder.name
    assert lines[3].startswith("client-1  online; answered")
    assert lines[5].startswith("pi9       offline; not in this run")


def test_a_device_that_fails_says_why(output: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    source = run_folder(None, output)
    facts = json.loads((source / "run.json").read_text())
    facts["refused"] = {"pi9": "runs other code"}
    (folder / "run.json").write_text(json.dumps(facts))
    first, second = (source / "metrics.jsonl").read_text().splitlines()
    record = json.loads(second)
    record["clients"][0]["replied"] = False
    record["rejected"] = {"client-0": "error 5: gone"}
    half = '{"round": 3, "cli'
    (folder / "metrics.jsonl").write_text(f"{first}\n{json.dumps(record)}\n{half}")
    devices = devices_of(folder)
    assert devices["client-0"].state == "round 2: error 5: gone"
    assert devices["client-0"].last_round == 1
    assert devices["pi9"].state == "refused: runs other code"


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
