"""``kill -9`` of the server at random points: the resumed run gives the same bits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from benchmarks.crash_resume import CONFIG, crashes
from common.errors import SettingsError
from server_app.commands.simulate import simulate
from server_app.launcher.client_count import fleet_size
from server_app.launcher.config import RunConfigError
from server_app.run_folder.checkpoint import Checkpoints


def test_five_random_kills_change_nothing(tmp_path: Path) -> None:
    outcomes = list(crashes(5, seed=7, root=tmp_path))
    assert [crash.identical for crash in outcomes] == [True] * 5


def finished(folder: Path, **changes: Any) -> Path:
    # No state-dir: what clients keep is in the directory of the run.
    simulate({**CONFIG, "output-dir": str(folder), **changes}, 6)
    [run] = [path.parent for path in folder.glob("*/run.json")]
    return run


def resume(run: Path, **changes: Any) -> None:
    finished(run.parent, **{"resume-from": str(run), **changes})


def test_a_shorter_run_can_be_made_longer(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole")
    part = finished(tmp_path / "part", **{"num-rounds": 2})
    resume(part)
    # Rounds 1 and 2 evaluated other rounds (the last one always is); the bits agree.
    assert (part / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    rounds = [json.loads(x)["round"] for x in (part / "metrics.jsonl").open()]
    assert rounds == [1, 2, 3, 4, 5, 6]
    assert gates(part) == gates(whole)


def gates(run: Path) -> dict[str, bytes]:
    """Return the private gates that are kept, by client and round."""
    kept = run / "clients" / run.name
    found = sorted(kept.glob("*/gate-*.npy"))
    assert len(found) > 6
    return {str(path.relative_to(kept)): path.read_bytes() for path in found}


def test_a_run_that_was_moved_keeps_its_gates(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole")
    part = finished(tmp_path / "part", **{"num-rounds": 2})
    moved = tmp_path / "elsewhere" / part.name
    shutil.move(part, moved)
    resume(moved)
    assert not part.exists()
    assert gates(moved) == gates(whole)
    stored = json.loads((moved / "run.json").read_text())["settings"]
    assert (stored["resume-from"], stored["state-dir"]) == ("", "")


def test_a_run_goes_on_with_as_many_clients_as_before(tmp_path: Path) -> None:
    part = finished(tmp_path, **{"num-rounds": 1})
    before = (part / "run.json").read_bytes()
    said = "clients = 4 is not allowed: the run that is gone on with has 6 clients"
    with pytest.raises(RunConfigError, match=said):
        simulate({**CONFIG, "resume-from": str(part)}, 4)
    assert (part / "run.json").read_bytes() == before
    assert fleet_size(None, {"resume-from": str(part)}) == 6


def test_of_a_run_that_does_not_begin_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("server_app.app.train", fail)
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_goes_back_one_round_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = finished(tmp_path / "whole")
    expected = (whole / "model.safetensors").read_bytes()
    newest = max((whole / "checkpoints").glob("*.ckpt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    (whole / "model.safetensors").unlink()
    # A line that was being written when the power went.
    with (whole / "metrics.jsonl").open("a") as file:
        file.write('{"round": 7, "serv')
    resume(whole)
    assert "damaged" in caplog.text
    assert (whole / "model.safetensors").read_bytes() == expected
    rounds = [json.loads(x)["round"] for x in (whole / "metrics.jsonl").open()]
    assert rounds == [1, 2, 3, 4, 5, 6]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run = finished(tmp_path, **{"num-rounds": 1})
    with pytest.raises(SettingsError, match=r"lr was 0\.05, now 0\.5"):
        resume(run, lr=0.5)


def test_clients_of_another_version_are_refused_in_one_line(tmp_path: Path) -> None:
    run = finished(tmp_path, **{"num-rounds": 1})
    checkpoints = Checkpoints(run, keep=3)
    state = checkpoints.newest()
    assert state is not None
    profiles = state["fleet"]["profiles"]
    said = json.loads(profiles[0])
    profiles[0] = json.dumps({**said, "protocol": said["protocol"] - 1})
    checkpoints.save(1, state)
    with pytest.raises(SettingsError, match=r"resume-from = .*version.* protocol is"):
        resume(run)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunConfigError, match="not the directory of a run"):
        simulate({"resume-from": str(tmp_path), "output-dir": str(tmp_path)}, 2)


def test_no_gate_is_in_any_file_of_the_server(tmp_path: Path) -> None:
    run = finished(tmp_path)
    # What is the clients' own is in one place, and the rest may be given away.
    clients = run / "clients"
    gates = list(clients.rglob("*.npy"))
    assert gates
    files = [p for p in run.rglob("*") if p.is_file() and clients not in p.parents]
    written = b"".join(p.read_bytes() for p in files)
    for path in gates:
        secret = path.read_bytes()[128:]
        for start in range(0, len(secret) - 16, 16):
            assert secret[start : start + 16] not in written
    names = load_file(run / "model.safetensors")
    assert not any("gate" in name for name in names)
