"""``examples/own_data``: three fleets that differ by site, and that can be learned."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from client_app.__main__ import main as device
from common.task import read_task
from server_app.__main__ import main as server

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "own_data" / "make_sites.py"
FLEETS = ("images", "sensors", "machines")


def make(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, out, *arguments],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own") / "demo"
    made = make(out)
    assert made.returncode == 0, made.stderr
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.toml"  # names the place
    }


@pytest.mark.slow
def test_a_seed_gives_the_same_files(fleets: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "same").returncode == 0
    assert contents(tmp_path / "same") == contents(fleets)
    assert make(tmp_path / "other", "--seed", "1").returncode == 0
    assert contents(tmp_path / "other") != contents(fleets)


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    made = make(tmp_path)
    assert made.returncode == 2
    assert made.stderr == f"error: {tmp_path} is not empty\n"
    assert [*tmp_path.iterdir()] == [tmp_path / "mine"]


@pytest.mark.parametrize("name", FLEETS)
def test_every_site_can_take_part_and_none_has_all_classes(
    name: str, fleets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = fleets / name / "task.toml"
    classes = read_task(task).classes
    seen = []
    for site in sorted((fleets / name / "sites").iterdir()):
        assert device(["check-data", str(site), "--task", str(task), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert not found["skipped"] and not found["notes"], found
        seen.append({c for c, count in found["classes"].items() if count})
    first, second, third, fourth = classes
    assert seen == [{first, second, third}, {second, third, fourth}, {fourth, first}]


@pytest.mark.slow
@pytest.mark.parametrize("name", FLEETS)
def test_its_fleet_learns_and_predicts_by_name(
    name: str,
    fleets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = fleets / name / "run.toml"
    assert server(["simulate", "--run-config", str(settings)]) == 0
    [run] = (tmp_path / "results").iterdir()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    last: dict[str, Any] = json.loads(lines[-1])
    assert len(lines) == tomllib.loads(settings.read_text())["num-rounds"]
    sites = sorted(p.name for p in (fleets / name / "sites").iterdir())
    assert [each["client"] for each in last["clients"]] == sites
    assert last["fleet"] >= 0.85
    capsys.readouterr()
    new = fleets / name / "new"
    assert server(["predict", "--run", str(run), "--input", str(new)]) == 0
    said = capsys.readouterr().out
    assert all(each in said for each in read_task(fleets / name / "task.toml").classes)
