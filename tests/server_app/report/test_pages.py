"""What the pages say, and the command that writes them."""

from pathlib import Path

import pytest

from server_app.__main__ import main
from server_app.report import read_run, run_page
from tests.server_app.report.conftest import line, write_run


def test_names_from_outside_cannot_become_markup(run_folder: Path) -> None:
    html = run_page(read_run(run_folder))
    assert "error 2: &lt;gone&gt; &amp; away" in html
    assert "<gone>" not in html


def test_a_run_that_goes_on_reloads_and_a_finished_one_does_not(tmp_path: Path) -> None:
    going = write_run(tmp_path / "going", [line(1), line(2)])
    assert 'http-equiv="refresh"' in run_page(read_run(going))
    over = write_run(tmp_path / "over", [line(1), line(2), line(3)])
    assert 'http-equiv="refresh"' not in run_page(read_run(over))


def test_a_strategy_without_fitness_says_so(run_folder: Path) -> None:
    (run_folder / "fitness.npz").unlink()
    (run_folder / "expert_classes.npz").unlink()
    html = run_page(read_run(run_folder))
    assert "keeps no fitness matrix" in html
    assert "Not measured yet" in html


def test_one_run_gets_its_report_and_several_are_compared(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run_folder)]) == 0
    assert capsys.readouterr().out.strip() == str(run_folder / "report.html")
    other = write_run(tmp_path / "run-b", [line(1)], strategy="random", seed=5)
    page = tmp_path / "both.html"
    assert main(["report", str(run_folder), str(other), "--out", str(page)]) == 0
    html = page.read_text()
    assert "2 runs" in html
    difference = html[html.index("Settings that differ") :]
    assert "strategy" in difference
    assert "seed" not in difference


def test_a_directory_without_a_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    out = capsys.readouterr().out
    assert out.startswith(f"error: {tmp_path} is not the directory of a run")
    assert out.count("\n") == 1
