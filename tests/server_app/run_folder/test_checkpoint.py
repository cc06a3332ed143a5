"""Checkpoints: nothing lost, nothing half-written, damage found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_app.run_folder.checkpoint import (
    CheckpointError,
    Checkpoints,
    decode,
    encode,
    read,
)


def state_of(completed: int) -> dict[str, Any]:
    return {
        "completed": completed,
        "model": {"expert.0": np.arange(5, dtype=np.float32) * completed},
        "strategy": {"deficit": np.array([0.1, -2.0]), "count": 3, "none": None},
        "fleet": [{"name": "client-0", "ok": True, "share": 0.25}],
        "empty": np.empty((0, 8)),
        "scalar": np.array(2.5),
    }


def assert_equal(first: Any, second: Any) -> None:
    if isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second)
        assert first.dtype == second.dtype and first.shape == second.shape
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list):
        for mine, theirs in zip(first, second, strict=True):
            assert_equal(mine, theirs)
    else:
        assert first == second


def test_a_state_comes_back_as_it_was() -> None:
    assert_equal(state_of(3), decode(encode(state_of(3))))


def test_restored_arrays_can_be_written_to() -> None:
    decode(encode(state_of(1)))["model"]["expert.0"][0] = 7


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"bytes",
        {1: 2.0},  # it would come back as {"1": 2.0}
        1j,
        np.array(["a", "b"]),
        np.array([None]),
        np.array([1j]),
        np.random.default_rng(0),
    ],
)
def test_what_is_no_value_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^strategy\.x cannot be kept in a chec"):
        encode({"completed": 1, "strategy": {"usage": np.zeros(2), "x": value}})


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for completed in range(1, 6):
        checkpoints.save(completed, state_of(completed))
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["round-000004.ckpt", "round-000005.ckpt"]
    newest = checkpoints.newest()
    assert newest is not None and newest["completed"] == 5


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, keep=1).newest() is None


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_a_damaged_file_is_passed_over_loudly(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, state_of(1))
    checkpoints.save(2, state_of(2))
    path = tmp_path / "checkpoints" / "round-000002.ckpt"
    data = bytearray(path.read_bytes())
    if damage == "one bit":
        data[len(data) // 2] ^= 1
    path.write_bytes(
        data[:-9]
        if damage == "truncated"
        else data
        if data and damage == "one bit"
        else b""
    )
    with pytest.raises(CheckpointError, match="checksum"):
        read(path)
    newest = checkpoints.newest()
    assert newest is not None and newest["completed"] == 1
    assert "round-000002.ckpt is damaged" in caplog.text


def test_only_damaged_files_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, state_of(1))
    (tmp_path / "checkpoints" / "round-000001.ckpt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="intact"):
        checkpoints.newest()


def test_another_format_is_refused() -> None:
    from safetensors.numpy import save

    with pytest.raises(CheckpointError, match="format"):
        decode(save({"a": np.zeros(1)}, metadata={"format": "other", "state": "{}"}))
