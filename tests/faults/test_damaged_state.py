"""A device whose state is damaged or gone trains on, and the run says what it lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_app.commands.simulate import simulate

CONFIG: dict[str, Any] = {
    "num-experts": 4,
    "local-epochs": 1,
    "train-samples": 150,
    "test-samples": 50,
    "upload-dtype": "int8",
    "expert-cache": True,
    "keep-checkpoints": 8,
}


def run(root: Path, rounds: int, **changes: Any) -> tuple[Path, list[dict[str, Any]]]:
    """Train three clients up to a round, from the beginning or from where it was."""
    places = {"output-dir": str(root / "out"), "state-dir": str(root / "state")}
    earlier = [str(path.parent) for path in root.glob("out/*/run.json")]
    resume = {"resume-from": earlier[0]} if earlier else {}
    simulate({**CONFIG, **places, **resume, "num-rounds": rounds, **changes}, 3)
    [folder] = [path.parent for path in root.glob("out/*/run.json")]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return folder, [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    run(root, 2)
    return root


@pytest.fixture
def root(tmp_path: Path, two_rounds: Path) -> Path:
    return Path(shutil.copytree(two_rounds, tmp_path / "copy"))


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\xff\xfe\x00garbage"),
    "half": lambda path: path.write_bytes(
        path.read_bytes()[: path.stat().st_size // 2]
    ),
    "shape": lambda path: path.write_bytes(
        shutil.copyfile(_small(path), path).read_bytes()
    ),
    "directory": to_directory,
    "gone": lambda path: path.unlink(),
}


def _small(path: Path) -> Path:
    """Return a file with a healthy vector of three values."""
    small = path.parent.parent / "small.npy"
    np.save(small, np.zeros(3, np.float32))
    return small


@pytest.mark.parametrize("damage", DAMAGE)
def test_no_damaged_file_puts_a_device_out(root: Path, damage: str) -> None:
    [folder] = root.glob("state/*/client-0")
    files = [path for path in folder.rglob("*") if path.is_file()]
    kinds = {path.relative_to(folder).as_posix().split("-")[0] for path in files}
    assert kinds > {"attempts", "gate", "residual"} and len(files) > 6
    for path in files:
        DAMAGE[damage](path)
    _, rounds = run(root, 4)
    assert [record["rejected"] for record in rounds] == [{}] * 4
    assert all(len(record["clients"]) == 3 for record in rounds)
    told = " ".join(rounds[2]["notes"])
    assert "client-0: the private gate of round 2 is not here" in told
    assert "client-0: residual-2.safetensors is " in told
    assert "client-1" not in told
    # What it kept afterwards is whole again.
    assert [note for note in rounds[3]["notes"] if "client-0" in note] == []


def test_a_fleet_without_its_state_says_so_in_one_line(root: Path) -> None:
    shutil.rmtree(root / "state")
    _, rounds = run(root, 3, **{"upload-dtype": "int8"})
    assert (
        "client-0, client-1, client-2: the private gate of round 2 is not here: it "
        "starts from a fresh one"
    ) in rounds[2]["notes"]


def test_a_resumed_fleet_with_its_state_says_nothing(root: Path) -> None:
    _, rounds = run(root, 3)
    assert [record["notes"] for record in rounds] == [[], [], []]


def test_every_round_that_is_kept_can_be_gone_back_to(tmp_path: Path) -> None:
    folder, _ = run(tmp_path, 6)
    whole = (folder / "model.safetensors").read_bytes()
    for path in sorted(folder.glob("checkpoints/round-*.ckpt"))[1:]:
        path.unlink()
    _, rounds = run(tmp_path, 6)
    assert (folder / "model.safetensors").read_bytes() == whole
    assert not [n for each in rounds for n in each["notes"] if "is not here" in n]
