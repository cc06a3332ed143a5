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
from server_app.run_folder.checkpoint import Checkpoints


def test_five_random_kills_change_nothing(tmp_path: Path) -> None:
    outcomes = list(crashes(5, seed=7, root=tmp_path))
    assert [crash.identical for crash in outcomes] == [True] * 5


def finished(folder: Path, **changes: Any) -> Path:
    config = {**CONFIG, "output-dir": str(folder), "state-dir": str(folder / "gates")}
    simulate({**config, **changes}, 6)
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
    state["fleet"][0]["profile"]["protocol"] -= 1
    checkpoints.save(1, state)
    with pytest.raises(SettingsError, match=r"resume-from = .*version.* protocol is"):
        resume(run)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not the directory of a run"):
        simulate({"resume-from": str(tmp_path), "output-dir": str(tmp_path)}, 2)


def test_no_gate_is_in_any_file_of_the_server(tmp_path: Path) -> None:
    run = finished(tmp_path)
    gates = list((tmp_path / "gates").rglob("*.npy"))
    assert gates
    shutil.copytree(run, tmp_path / "copy")
    written = b"".join(p.read_bytes() for p in run.rglob("*") if p.is_file())
    for path in gates:
        secret = path.read_bytes()[128:]
        for start in range(0, len(secret) - 16, 16):
            assert secret[start : start + 16] not in written
    names = load_file(run / "model.safetensors")
    assert not any("gate" in name for name in names)
