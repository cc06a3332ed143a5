"""What the pages say, and the command that writes them."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server_app.__main__ import main
from server_app.report.comparison import comparison_page
from server_app.report.pages import run_page
from server_app.report.run_data import read_run
from server_app.run_folder.matrices import FitnessFile
from server_app.run_folder.run_lock import RunLock
from tests.server_app.report.conftest import line, write_run


def test_names_from_outside_cannot_become_markup(run_folder: Path) -> None:
    html = run_page(read_run(run_folder))
    assert "error 2: &lt;gone&gt; &amp; away" in html
    assert "<gone>" not in html


def test_a_run_that_goes_on_reloads_and_one_that_is_over_does_not(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "run", [line(1), line(2)])
    lock = RunLock(run)
    going = run_page(read_run(run))
    assert 'class="state running" data-until="' in going
    assert "Reload the page to see newer rounds" in going
    lock.release()
    killed = run_page(read_run(run))
    assert ">died: its server ended without a word<" in killed
    assert f"To go on: resume-from=&quot;{run}&quot;" in killed
    over = write_run(tmp_path / "over", [line(1), line(2), line(3)])
    complete = run_page(read_run(over))
    assert 'class="state complete">complete<' in complete
    for html in (killed, complete):
        assert 'data-until="' not in html and "http-equiv" not in html


def test_the_report_shows_who_got_no_sample(run_folder: Path) -> None:
    html = run_page(read_run(run_folder))
    # 0.375 in every line of the run.
    assert "dead placements, last round" in html
    assert "0.375" in html
    assert "share of placements without a sample" in html


def test_a_strategy_without_fitness_says_so(run_folder: Path) -> None:
    (run_folder / "fitness.rows").unlink()
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
    assert "<h1>2 runs</h1>" in html
    difference = html[html.index("Settings that differ") :].split("</table>")[0]
    assert "strategy" in difference
    assert "seed" not in difference
    # Its report is written, that of the other is not.
    assert '<a href="run-a/report.html">run-a</a>' in html
    assert "<td>run-b</td>" in html or ">run-b</td>" in html


def test_a_directory_without_a_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {tmp_path} is not the directory of a run")
    assert said.err.count("\n") == 1 and not said.out


def numbers() -> st.SearchStrategy[Any]:
    extreme = [1e308, -1e308, 5e-324, 10**400, math.inf, -math.inf, math.nan, None, 0]
    return st.sampled_from(extreme) | st.floats() | st.integers()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_no_number_keeps_a_page_from_being_made(
    tmp_path: Path, data: st.DataObject
) -> None:
    names = ["server_global", "cv_round", "cv_cumulative", "seconds", "bytes_down"]
    lines = []
    for number in (1, 2):
        found = {name: data.draw(numbers(), name) for name in names}
        one = line(number, **found, load=data.draw(st.lists(numbers(), min_size=1)))
        one["solver"] = {"seconds": data.draw(numbers(), "solver")}
        one["clients"][0] |= {
            "client_local": data.draw(numbers(), "local"),
            "seconds_until_reply": data.draw(numbers(), "slowest"),
        }
        lines.append(one)
    run = write_run(tmp_path / "run", lines)
    fitness = np.array(
        data.draw(st.lists(st.floats(width=32), min_size=12, max_size=12)),
        dtype=np.float32,
    )
    (run / "fitness.rows").unlink()
    file = FitnessFile(run)
    for number, matrix in enumerate(fitness.reshape(2, 2, 3), 1):
        file.append(number, matrix)
    read = read_run(run)
    for html in (run_page(read), comparison_page([read, read])):
        for chart in re.findall("<svg.*?</svg>", html):
            assert not re.search(r'="[^"]*\b(nan|inf)\b', chart)
        assert not re.search(
            r">[^<]*\b(nan|inf|None)\b[^<]*<", html.split("<script>")[0]
        )


def test_a_name_with_half_a_surrogate_pair_can_be_written(run_folder: Path) -> None:
    path = run_folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"\\ud800"'))
    assert main(["report", str(run_folder)]) == 0
