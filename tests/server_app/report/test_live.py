"""The page is rewritten often enough to be watched, and at a bounded cost."""

from pathlib import Path

from server_app.report.live import FILE, SHARE, LiveReport


class Clock:
    """Advances by ``step`` with every look at it."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 1.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_a_rewrite_waits_until_the_last_one_is_paid_for(run_folder: Path) -> None:
    clock = Clock()
    live, page = LiveReport(run_folder, clock), run_folder / FILE
    live.refresh()
    written = page.stat().st_mtime_ns
    # It took one tick of 1 s: nothing for the next 1 / SHARE seconds.
    live.refresh()
    assert page.stat().st_mtime_ns == written
    clock.now += 1 / SHARE
    page.unlink()
    live.refresh()
    assert page.exists()


def test_the_last_page_is_written_whatever_the_clock_says(run_folder: Path) -> None:
    live, page = LiveReport(run_folder, Clock()), run_folder / FILE
    live.refresh()
    page.unlink()
    live.write()
    assert page.exists()
    assert list(run_folder.glob(".report*")) == []


def test_a_page_that_cannot_be_written_ends_nothing(run_folder: Path) -> None:
    (run_folder / "metrics.jsonl").write_text("")
    LiveReport(run_folder, Clock()).write()
    assert not (run_folder / FILE).exists()
