"""What the report says of single classes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_app.report.by_class import MOST_LINES, MOST_ROWS
from server_app.report.comparison import comparison_page
from server_app.report.pages import run_page
from server_app.report.run_data import read_run
from tests.server_app.report.conftest import line, write_run


def written(folder: Path, *lines: dict[str, Any], classes: list[str]) -> Path:
    rounds = [line(number, **changes) for number, changes in enumerate(lines, 1)]
    run = write_run(folder, rounds)
    facts = json.loads((run / "run.json").read_text())
    facts["task"] = {"kind": "image", "classes": classes}
    (run / "run.json").write_text(json.dumps(facts))
    return run


def cells(html: str) -> list[list[str]]:
    """Return the cells of the table of recall by class, row by row."""
    start = html.index('id="classes-found"')
    rows = re.findall("<tr>(.*?)</tr>", html[start : html.index("</table>", start)])
    return [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_a_class_that_is_never_found_leads_the_table(tmp_path: Path) -> None:
    first = {"recall": [0.5, 0.5, None], "local_recall": [0.25, 0.75, None]}
    last = {"recall": [0.999, 0.0, None], "balanced": 0.4995}
    run = written(tmp_path / "run", first, last, {}, classes=["ok", "<crack>", "rust"])
    html = run_page(read_run(run))
    header, *rows = cells(html)
    assert header[0] == "class" and len(header) == 3
    assert rows == [
        ["&lt;crack&gt;", "0", "0.75"],
        ["ok", "0.999", "0.25"],
        ["rust", "–", "–"],
    ]
    assert "<crack>" not in html
    # In the figure as well, and as a number at the top.
    assert re.search('id="recall".*?<polyline', html, re.DOTALL)
    assert "0.499" in html[: html.index("Figures")]


@pytest.mark.parametrize("count", [MOST_LINES + 1, 3 * MOST_ROWS])
def test_many_classes_are_a_map_and_a_table_of_the_worst(
    tmp_path: Path, count: int
) -> None:
    shares = [k / count for k in range(count)]
    run = written(tmp_path / "run", {"recall": shares}, classes=[])
    html = run_page(read_run(run))
    drawn = html[html.index('<figure id="recall"') :].split("</figure>")[0]
    assert 'class="heat"' in drawn and "<polyline" not in drawn
    _, *rows = cells(html)
    assert rows[0] == ["0", "0"]
    assert len(rows) == min(count, MOST_ROWS)
    assert ("and 100 more" in html) == (count > MOST_ROWS)


def test_the_confusion_matrix_is_drawn_by_class(tmp_path: Path) -> None:
    run = written(tmp_path / "run", {}, classes=["a", "b"])
    assert "Not measured yet, or of too many classes" in run_page(read_run(run))
    # Of class 0 all were found, class 1 has no samples.
    np.savez(run / "confusion.npz", confusion=np.array([[7, 0], [0, 0]]), round=1)
    html = run_page(read_run(run))
    assert "too many classes" not in html
    assert 'id="confusion"' in html


def test_classes_go_by_their_names_beside_the_matrix(tmp_path: Path) -> None:
    run = written(
        tmp_path / "run", {"recall": [1.0, 0.5]}, classes=["ok", "a very long name"]
    )
    np.savez(run / "confusion.npz", confusion=[[4, 0], [1, 1]])
    html = run_page(read_run(run))
    chart = html[html.index('<figure id="confusion"') :].split("</figure>")[0]
    labels = re.findall(r'<text class="tick"[^>]*>([^<]*)<', chart)
    assert labels == ["ok", "a very… name"] * 2


def test_clients_go_by_their_names_beside_their_fitness(tmp_path: Path) -> None:
    html = run_page(read_run(write_run(tmp_path / "run", [line(1)])))
    chart = html[html.index('<figure id="fitness-end"') :].split("</figure>")[0]
    labels = re.findall(r'<text class="tick"[^>]*>([^<]*)<', chart)
    assert labels == ["a", "b", "0", "1", "2"]


def test_who_was_not_measured_is_in_no_legend(tmp_path: Path) -> None:
    local = [{"client": "a", "experts": [0], "client_local": 0.9, "seconds": 0.25}]
    html = run_page(read_run(write_run(tmp_path / "run", [line(1, clients=local)])))
    chart = html[html.index('<figure id="clients"') :].split("</figure>")[0]
    assert "client_local (mean)" in chart and "client_global" not in chart


def test_an_accuracy_nobody_measured_has_no_line(tmp_path: Path) -> None:
    own = {"server_global": None, "client_global": None, "fleet": 0.75}
    one = written(tmp_path / "own", own, classes=[])
    html = run_page(read_run(one))
    assert "server_global" not in html.split("<details>")[0]
    assert "<b>0.75</b>" in html
    # Side by side with a run that has the other one, both have their column.
    known = write_run(tmp_path / "known", [line(1)])
    both = comparison_page([read_run(one), read_run(known)])
    assert "fleet by traffic" in both and "server_global by traffic" in both


@pytest.mark.parametrize("damaged", ["text", [1, "x", None], [[1]], 3])
def test_a_damaged_list_costs_no_page(tmp_path: Path, damaged: Any) -> None:
    run = written(tmp_path / "run", {"recall": damaged}, {"recall": [0.5]}, classes=[])
    assert "Recall by class" in run_page(read_run(run))


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("/srv/cracks.toml", "cracks"),
        ("demo/machines/task.toml", "machines"),
        ("/task.toml", "task"),
        ("task.toml", "task"),
    ],
)
def test_a_run_of_devices_own_data_is_called_after_its_task(
    task: str, name: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", [line(1)], task=task)
    html = run_page(read_run(run))
    assert f"<h1>flex-moe on {name}</h1>" in html
    assert (
        "devices&#x27; own data" in html
        and "partition classes" not in html.split("<details>")[0]
    )
