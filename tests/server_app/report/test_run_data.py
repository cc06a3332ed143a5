"""What is read from a run's directory, worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from server_app.report.run_data import ReportError, read_run, worst_tenth


def test_columns_sums_churn_and_remarks(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert run.complete
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
    assert run.last_clients("client_local") == [0.9, 0.5]
    assert dict(run.remarks()) == {
        "not merged: b: error 2: <gone> & away": [2],
        "late replies discarded": [2],
        "load-tolerance widened from 0.1 to 0.2": [3],
    }


def test_the_worst_tenth_is_at_least_one() -> None:
    assert worst_tenth([0.5, 0.1, 0.9]) == 0.1
    assert worst_tenth([i / 20 for i in range(20)]) == pytest.approx(0.025)
    assert math.isnan(worst_tenth([]))


def test_a_line_cut_by_a_power_failure_is_left_out(run_folder: Path) -> None:
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "load": [1')
    assert read_run(run_folder).numbers == [1, 2, 3]


def test_what_is_no_run_is_refused_by_name(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(ReportError, match="nothing-here is not the directory of a run"):
        read_run(tmp_path / "nothing-here")
    (run_folder / "metrics.jsonl").write_text("")
    with pytest.raises(ReportError, match="no finished round"):
        read_run(run_folder)


def test_a_run_without_matrices_can_be_read(run_folder: Path) -> None:
    for name in ("assignments", "fitness", "expert_classes"):
        (run_folder / f"{name}.npz").unlink()
    run = read_run(run_folder)
    assert (run.assignments, run.fitness, run.learned) == (None, None, None)
    assert run.churn() == []
