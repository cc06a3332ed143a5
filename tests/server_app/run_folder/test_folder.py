"""A run's directory: what is lost, damaged or in use, and what is made again."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import SettingsError
from server_app.run_folder.folder import RunFolder
from server_app.run_folder.run_files import read_metrics, to_json
from server_app.run_folder.unbegun import check_place
from tests.server_app.run_folder.support import (
    begin,
    go_on,
    made,
    numbers,
    record_of,
    settings_of,
    state_of,
    train,
)


def test_lines_that_were_lost_come_back_from_the_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(tmp_path)
    lines = (path / "metrics.jsonl").read_bytes()
    (path / "metrics.jsonl").write_bytes(lines[: len(lines) // 3])
    run, completed = go_on(path)
    run.release()
    assert completed == 4
    assert (path / "metrics.jsonl").read_bytes() == lines
    assert "had lost rounds 2, 3, 4: taken from the checkpoints" in caplog.text


def test_rounds_that_are_gone_for_good_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(tmp_path, rounds=6)
    (path / "metrics.jsonl").unlink()
    run, _ = go_on(path)
    run.release()
    assert numbers(path) == [4, 5, 6]
    assert "has lost rounds 1, 2, 3; what was trained" in caplog.text


BAD_LINES = [
    b'{"round": 2, "lo',
    b"\0" * 700,
    b"\xff\xfe\x80",
    b"[" * 100_000,
    b"7",
    b'{"round": 2}',
    b'{"round": true, "load": 3}',
]


def test_a_line_that_is_there_twice_is_once_afterwards(tmp_path: Path) -> None:
    path = made(tmp_path)
    lines = (path / "metrics.jsonl").read_bytes()
    (path / "metrics.jsonl").write_bytes(lines + lines)
    run, _ = go_on(path)
    run.release()
    assert (path / "metrics.jsonl").read_bytes() == lines


@pytest.mark.parametrize("bad", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_costs_no_other(
    bad: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(tmp_path)
    lines = (path / "metrics.jsonl").read_bytes().splitlines()
    damaged = b"\n".join([lines[0], bad, *lines[2:]]) + b"\n"
    (path / "metrics.jsonl").write_bytes(damaged)
    assert numbers(path) == [1, 3, 4]
    run, _ = go_on(path)
    run.release()
    assert "lines 2 are damaged" in caplog.text
    assert (path / "metrics.jsonl").read_bytes().splitlines() == lines


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_null(value: float, tmp_path: Path) -> None:
    record = record_of(1, server_global=value, solver={"bound": value, "seconds": 0.0})
    run = begin(tmp_path)
    run.keep(1, record.to_json(), state_of(1))
    run.write_facts(clients={"a": {"cores": value}})
    run.release()
    for name in ("metrics.jsonl", "run.json"):
        found = json.loads((run.path / name).read_text(), parse_constant=pytest.fail)
    assert found["clients"] == {"a": {"cores": None}}
    [line] = read_metrics(run.path)[0]
    assert line["server_global"] is line["solver"]["bound"] is None


def test_what_a_strategy_says_need_not_be_json() -> None:
    value = {("a", 1): np.float64(2), "b": np.array([np.nan, 1]), "c": {3}}
    assert json.loads(to_json(value)) == {"('a', 1)": 2.0, "b": [None, 1.0], "c": "{3}"}


def test_checkpoints_that_are_gone_are_no_fresh_start(tmp_path: Path) -> None:
    path = made(tmp_path)
    before = (path / "metrics.jsonl").read_bytes()
    for file in (path / "checkpoints").iterdir():
        file.unlink()
    for _ in range(2):
        with pytest.raises(SettingsError, match="round 4 is on record, but there is"):
            go_on(path)
    (path / "checkpoints").rmdir()
    with pytest.raises(SettingsError, match="there is no checkpoint to go on from"):
        go_on(path)
    assert (path / "metrics.jsonl").read_bytes() == before


def test_checkpoints_that_are_damaged_are_no_fresh_start_either(tmp_path: Path) -> None:
    path = made(tmp_path, rounds=1)
    (path / "checkpoints" / "round-000001.ckpt").write_bytes(b"junk")
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"no checkpoint in .* is intact"):
            go_on(path)


def test_a_run_cut_in_its_first_round_starts_with_it(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.release()
    again, completed = go_on(run.path)
    again.release()
    assert completed == 0


@pytest.mark.parametrize("damage", ["directory", "truncated", "cannot be read"])
def test_a_checkpoint_that_cannot_be_used_does_not_push_out_one_that_can(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(tmp_path)
    newest = path / "checkpoints" / "round-000004.ckpt"
    data = newest.read_bytes()
    newest.unlink()
    if damage == "directory":
        newest.mkdir()
        (newest / "inside").write_text("")
    elif damage == "truncated":
        newest.write_bytes(data[:-1])
    else:
        newest.symlink_to(newest.name)
    run, completed = go_on(path, keep_checkpoints=1)
    assert completed == 3
    assert "going back to the checkpoint before it" in caplog.text
    train(run, completed, [])
    run.release()
    run, completed = go_on(path, keep_checkpoints=1)
    run.release()
    assert completed == 4
    assert [p.name for p in (path / "checkpoints").glob("*.ckpt")] == [newest.name]


RUN_JSON = {
    "empty": b"",
    "half": b'{"run": "x", "set',
    "zeros": b"\0" * 300,
    "a list": b"[]",
    "no settings": b'{"run": "x"}',
    "settings of another kind": b'{"run": "x", "settings": []}',
    "no name": b'{"settings": {}}',
    "a name that leads away": b'{"run": "../x", "settings": {}}',
    "data of another kind": b'{"run": "x", "settings": {}, "data": null}',
    "no text": b"\xff\xfe\x80",
}


@pytest.mark.parametrize("content", RUN_JSON.values(), ids=RUN_JSON)
def test_a_damaged_run_json_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = made(tmp_path)
    (path / "run.json").write_bytes(content)
    for check in (RunFolder, check_place):
        with pytest.raises(SettingsError, match=r"resume-from = .*run\.json") as found:
            check(settings_of(tmp_path, resume_from=str(path)))
        assert "\n" not in str(found.value)
    assert (path / "run.json").read_bytes() == content


@pytest.mark.parametrize("version", ["older", "newer"])
def test_a_run_of_another_version_is_refused(version: str, tmp_path: Path) -> None:
    path = made(tmp_path)
    facts = json.loads((path / "run.json").read_bytes())
    if version == "older":  # it had no such setting: what it did nobody can say
        del facts["settings"]["idle-fitness"]
    else:
        facts["settings"] |= {"idle-fitness-2": 1}
    # These cannot change what is computed.
    for free in ("callbacks", "fleet-list", "unknown-clients"):
        del facts["settings"][free]
    (path / "run.json").write_text(json.dumps(facts))
    for check in (RunFolder, check_place):
        with pytest.raises(SettingsError, match=r"another version .* idle-f") as e:
            check(settings_of(tmp_path, resume_from=str(path)))
        assert "callbacks" not in str(e.value)


def test_a_second_server_is_told_who_has_the_run(tmp_path: Path) -> None:
    run = begin(tmp_path)
    holder = rf"is being written by process {os.getpid()} on \S+: stop that one first"
    with pytest.raises(SettingsError, match=holder):
        go_on(run.path)
    run.release()
    go_on(run.path)[0].release()


def test_the_death_of_a_server_lets_go_of_its_run(tmp_path: Path) -> None:
    path = made(tmp_path)
    program = (
        "import sys, time; from pathlib import Path;"
        "from server_app.run_folder.run_lock import RunLock;"
        "lock = RunLock(Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(SettingsError, match=f"process {other.pid} on"):
            go_on(path)
        other.kill()
        other.wait()
    go_on(path)[0].release()


def test_no_two_runs_share_a_name_and_all_are_as_long(tmp_path: Path) -> None:
    runs = [begin(tmp_path / str(number)) for number in range(20)]
    for run in runs:
        run.release()
    assert len({run.name for run in runs}) == 20
    assert len({len(run.name) for run in runs}) == 1
    assert all(re.fullmatch(r"[\w-]+", run.name) for run in runs)
    assert [run.path.name for run in runs] == [run.name for run in runs]


def test_a_place_that_cannot_be_written_is_one_line_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    long = tmp_path / ("x" * 300)
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper", long):
        for check in (check_place, RunFolder):
            with pytest.raises(SettingsError, match=r"output-dir = .* cannot be wr"):
                check(settings_of(folder))
    path = made(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SettingsError, match="no right to write in"):
        check_place(settings_of(tmp_path / "new"))
    with pytest.raises(SettingsError, match=r"resume-from = .* no right to write in"):
        check_place(settings_of(tmp_path, resume_from=str(path)))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("place", ["nothing", "file"])
def test_what_is_no_run_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for check in (check_place, RunFolder):
        with pytest.raises(SettingsError, match="not the directory of a run"):
            check(settings_of(tmp_path, resume_from=str(tmp_path / place)))
