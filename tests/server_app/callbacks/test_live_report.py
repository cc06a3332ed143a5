"""The page is rewritten often enough to be watched, and at a bounded cost."""

from pathlib import Path
from typing import Any

import pytest

from common.settings import Settings
from server_app.callbacks.hooks import RunStart
from server_app.callbacks.live_report import SHARE, LiveReport
from server_app.report.pages import FILE
from server_app.run_folder.run_files import RunFileError
from tests.server_app.report.conftest import line, write_run

ANY: Any = None


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", [line(1), line(2)])


class Clock:
    """Advances by ``step`` with every look at it."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 1.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def begun(folder: Path, clock: Clock, completed: int = 0) -> LiveReport:
    live = LiveReport(Settings(), clock)
    live.on_run_begin(RunStart(path=folder, name="run", completed=completed), ANY)
    return live


def test_a_rewrite_waits_until_the_last_one_is_paid_for(run_folder: Path) -> None:
    clock = Clock()
    live, page = begun(run_folder, clock), run_folder / FILE
    live.on_round_end(ANY, ANY)
    written = page.stat().st_mtime_ns
    # It took one tick of 1 s: nothing for the next 1 / SHARE seconds.
    live.on_round_end(ANY, ANY)
    assert page.stat().st_mtime_ns == written
    clock.now += 1 / SHARE
    page.unlink()
    live.on_round_end(ANY, ANY)
    assert page.exists()


def test_the_last_page_is_written_whatever_the_clock_says(run_folder: Path) -> None:
    live, page = begun(run_folder, Clock()), run_folder / FILE
    live.on_round_end(ANY, ANY)
    page.unlink()
    live.on_run_end()
    assert page.exists()
    assert list(run_folder.glob(".report*")) == []


@pytest.mark.parametrize(("completed", "written"), [(0, False), (2, True)])
def test_a_run_that_trains_nothing_more_has_a_page_of_what_it_has(
    run_folder: Path, completed: int, written: bool
) -> None:
    begun(run_folder, Clock(), completed).on_run_end()
    assert (run_folder / FILE).exists() == written


def test_a_page_that_fails_costs_its_time_as_well(run_folder: Path) -> None:
    live = begun(run_folder, Clock())
    (run_folder / "metrics.jsonl").write_text("")
    with pytest.raises(RunFileError, match="no finished round"):
        live.on_round_end(ANY, ANY)
    assert not (run_folder / FILE).exists()
    live.on_round_end(ANY, ANY)  # not due yet, so nothing is raised
