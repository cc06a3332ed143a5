"""What is read from a run's directory, worked out by hand."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_app.report.run_data import read_run
from server_app.run_folder.run_files import RunFileError
from server_app.run_folder.run_lock import RunLock
from tests.server_app.report.conftest import line, write_run


def test_columns_sums_churn_and_remarks(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert run.state == "complete"
    assert run.numbers == [1, 2, 3]
    first, *rest = run.column("server_global")
    assert math.isnan(first)
    assert rest == pytest.approx([0.4, 0.6])
    assert run.cumulated("bytes_down", "bytes_up") == [3e6, 6e6, 9e6]
    np.testing.assert_array_equal(run.load, [[1, 1, 1], [1, 1, 1], [0, 0, 0]])
    # Client a moves to expert 2 and back: one of two pairs is new, twice.
    first, *rest = run.churn()
    assert math.isnan(first)
    assert rest == [0.5, 0.5]
    assert run.last_clients("client_local") == [("a", 0.9), ("b", 0.5)]
    assert run.worst_tenth() == 0.5
    assert dict(run.remarks()) == {
        "not merged: b: error 2: <gone> & away": [2],
        "late replies discarded": [2],
        "load-tolerance widened from 0.1 to 0.2": [3],
    }


def test_a_line_cut_by_a_power_failure_is_left_out(run_folder: Path) -> None:
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "load": [1')
    assert read_run(run_folder).numbers == [1, 2, 3]


def test_what_is_no_run_is_refused_by_name(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(
        RunFileError,
        match="nothing-here is not the directory of a run",
    ):
        read_run(tmp_path / "nothing-here")
    (run_folder / "metrics.jsonl").write_text("")
    with pytest.raises(RunFileError, match="no finished round"):
        read_run(run_folder)


def test_a_run_without_matrices_can_be_read(run_folder: Path) -> None:
    for name in ("fitness.rows", "expert_classes.npz"):
        (run_folder / name).unlink()
    run = read_run(run_folder)
    assert (run.fitness, run.learned, run.damaged) == (None, None, ())
    assert run.churn()[1:] == [0.5, 0.5]


def test_one_bad_line_hides_no_other(run_folder: Path) -> None:
    path = run_folder / "metrics.jsonl"
    first, _, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, b"\0" * 99, third, b""]))
    run = read_run(run_folder)
    assert run.numbers == [1, 3]
    assert run.state == "complete"
    assert run.remarks()[0] == ("metrics.jsonl: line 2 is damaged", [])


@pytest.mark.parametrize("name", ["fitness.rows", "expert_classes.npz"])
@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY junk"])
def test_a_damaged_matrix_costs_its_figure_only(
    name: str, content: bytes, run_folder: Path
) -> None:
    (run_folder / name).write_bytes(content)
    run = read_run(run_folder)
    assert (run.fitness is None) == (name == "fitness.rows")
    assert (run.learned is None) == (name == "expert_classes.npz")
    [said] = run.damaged
    assert re.match(rf"{name} (cannot be read|is damaged from its beginning)", said)
    assert run.numbers == [1, 2, 3]


def test_what_cannot_be_drawn_is_nan(tmp_path: Path) -> None:
    lines = [
        line(1, cv_cumulative=None, seconds=math.inf, bytes_up=10**400),
        line(2, cv_cumulative="x", load=[math.nan, 1]),
    ]
    run = read_run(write_run(tmp_path / "run", lines))
    assert all(map(math.isnan, run.column("cv_cumulative")))
    assert run.cumulated("bytes_down", "bytes_up") == [2e6, 5e6]
    np.testing.assert_array_equal(run.load[:, 1], [math.nan, 1, 0])


def told(run: Path, **facts: Any) -> tuple[str, str]:
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    found = read_run(run)
    return found.state, found.why


def test_a_run_says_what_it_is_and_a_dead_one_does_not_go_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [line(1), line(2)])
    died = ("died", "its server ended without a word")
    assert told(run) == told(run, state="running") == died
    lock = RunLock(run)
    assert told(run) == ("running", "")
    assert told(run, stopped="early-stopping: no better") == ("running", "")
    # It has said how it ends and lets go next.
    assert told(run, state="stopped", why="interrupted") == ("stopped", "interrupted")
    assert told(run, state="failed", why="no\nreply") == ("failed", "no?reply")
    enough = ("complete", "early-stopping: no better")
    assert told(run, state="complete") == enough
    lock.release()
    assert told(run, state="running") == enough
    assert told(write_run(tmp_path / "run", [line(3)])) == ("complete", "")


def test_a_run_as_it_was_after_a_round(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert run.until(2).numbers == [1, 2]
    assert run.until(0).numbers == [1]
    # Ten rounds of 2 s are less than ten minutes.
    assert run.patience == 600
