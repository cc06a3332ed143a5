"""What a power cut or a full disk leaves of a run can be gone on from."""

import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.power_cut import Disk, survive
from server_app.run_error import RunError
from server_app.run_folder.folder import RunFolder
from tests.server_app.run_folder.support import (
    ROUNDS,
    begin,
    full,
    go_on,
    made,
    numbers,
    record_of,
    settings_of,
    state_of,
    train,
)


class PowerCutError(BaseException):
    """The end of the process that writes."""


def cut_at(
    moment: int, seed: int, place: Path, act: Callable[[Path, list[int]], None]
) -> tuple[Path, list[int], int]:
    """Act until a moment; return what is left, what was kept by then, the moments."""
    root, left, kept = place / "root", place / "left", list[int]()

    def cut() -> None:
        survive(root, place / "journal", left, random.Random(seed))
        kept.append(-1)
        raise PowerCutError

    root.mkdir()
    with Disk(root, place / "journal", cut, moment) as disk:
        try:
            act(root, kept)
        except PowerCutError:
            kept = kept[: kept.index(-1)]
    return left, kept, disk.moments


def whole_run(root: Path, kept: list[int]) -> None:
    run = begin(root)
    try:
        train(run, 0, kept)
    finally:
        run.release()


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> int:
    return cut_at(0, 0, tmp_path_factory.mktemp("whole"), whole_run)[2]


@settings(max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_a_power_cut_at_any_moment_costs_no_round_that_was_kept(
    data: st.DataObject,
    seed: int,
    moments: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    moment = data.draw(st.integers(1, moments), "moment")
    left, kept, _ = cut_at(moment, seed, tmp_path_factory.mktemp("cut"), whole_run)
    found = [path.parent for path in left.glob("*/run.json")]
    if not found:
        assert not kept
        return
    files = (found[0] / "checkpoints").glob("*.ckpt")
    saved = {int(path.stem.removeprefix("round-")) for path in files}
    assert saved <= set(numbers(found[0]))
    run, completed = go_on(found[0])
    assert completed >= len(kept)
    assert numbers(found[0]) == list(range(1, completed + 1))
    train(run, completed, [])
    run.release()
    assert numbers(found[0]) == list(range(1, ROUNDS + 1))
    # What was being written is gone, and the newest are kept; an older one may be back.
    names = {p.name for p in (found[0] / "checkpoints").iterdir()}
    newest = {f"round-{n:06d}.ckpt" for n in (2, 3, 4)}
    assert newest <= names <= newest | {"round-000001.ckpt"}
    assert not list(found[0].glob(".*"))


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path)
    run.keep(1, record_of(1).to_json(), state_of(1))
    replace = os.replace
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RuntimeError, match=r"round 2 cannot be kept in .*: No space"):
        run.keep(2, record_of(2).to_json(), state_of(2))
    monkeypatch.setattr("os.replace", replace)
    assert run.kept == 1
    run.release()
    resumed, completed = go_on(run.path)
    resumed.release()
    assert completed == 1 and numbers(run.path) == [1]
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == [
        "round-000001.ckpt"
    ]


def test_a_full_disk_is_told_with_what_did_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path)
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b"damaged\n")
    before = {each: each.read_bytes() for each in path.iterdir() if each.is_file()}
    run = RunFolder(settings_of(tmp_path, resume_from=str(path)))
    writes: dict[str, Callable[[], object]] = {
        "run.json": lambda: run.write_facts(run=run.name),
        "metrics.jsonl": lambda: run.restore(ROUNDS),
        "model.safetensors": lambda: run.save_model(
            {"head": np.zeros(1, np.float32)}, lambda _: (("weight", (1,)),)
        ),
    }
    monkeypatch.setattr("os.fsync", full)
    for name, write in writes.items():
        told = f"{name} cannot be kept in {path}: No space left on device"
        with pytest.raises(RunError, match=f"^{re.escape(told)}$"):
            write()
    run.release()
    del before[path / "lock"]
    assert {each: each.read_bytes() for each in before} == before


def test_half_a_line_that_did_not_fit_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path)
    run.keep(1, record_of(1).to_json(), state_of(1))
    before = (run.path / "metrics.jsonl").read_bytes()
    write = os.write

    def half(descriptor: int, data: Any) -> int:
        if len(data) < 10:
            full()
        return write(descriptor, bytes(data)[: len(data) // 2])

    monkeypatch.setattr("os.write", half)
    with pytest.raises(RuntimeError, match="No space left"):
        run.keep(2, record_of(2).to_json(), state_of(2))
    assert (run.path / "metrics.jsonl").read_bytes() == before
    run.release()


# --- damage -----------------------------------------------------------------------
