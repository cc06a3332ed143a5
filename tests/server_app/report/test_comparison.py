"""Runs side by side, worked out by hand: seeds, unequal lengths, what differs."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from common.metrics import mean_interval
from server_app.report.comparison import comparison_page
from server_app.report.over_seeds import differing, grouped
from server_app.report.run_data import RunData, read_run
from tests.server_app.report.conftest import line, write_run


def made(folder: Path, values: list[float], **settings: Any) -> RunData:
    lines = [line(n, server_global=value) for n, value in enumerate(values, 1)]
    changes = {"num-rounds": 9, "output-dir": str(folder), **settings}
    return read_run(write_run(folder, lines, **changes))


@pytest.fixture
def runs(tmp_path: Path) -> list[RunData]:
    return [
        made(tmp_path / "a2", [0.5, 0.7], strategy="flex-moe", seed=2),
        made(tmp_path / "b1", [0.1, 0.2], strategy="fedavg", seed=1),
        made(tmp_path / "a1", [0.3, 0.5, 0.9], strategy="flex-moe", seed=1),
    ]


def rows(table: str) -> list[list[str]]:
    lines = re.findall("<tr>(.*?)</tr>", table)
    return [
        [
            unescape(re.sub("<.*?>", "", cell))
            for cell in re.findall(r"<t[hd].*?</t[hd]>", each)
        ]
        for each in lines
    ]


def test_the_interval_is_students() -> None:
    # t of 1 degree is 12.706, of 2 degrees 4.303; the deviation of 0, 2, 4 is 2.
    assert mean_interval([0.3, 0.5]) == pytest.approx((0.4, 12.7062 * 0.1), rel=1e-5)
    assert mean_interval([0, 2, 4]) == pytest.approx(
        (2, 4.30265 * 2 / 3**0.5), rel=1e-5
    )
    assert mean_interval([0.25]) == (0.25, None)
    assert mean_interval([1, 1, 1]) == (1, 0)


def test_seeds_are_one_line_over_the_rounds_that_all_have(runs: list[RunData]) -> None:
    flex, fedavg = grouped(runs)
    assert (flex.name, flex.seeds, flex.lengths) == ("flex-moe", "1, 2", "2-3")
    assert (fedavg.name, fedavg.seeds, fedavg.lengths) == ("fedavg", "1", "2")
    series = flex.series("server_global")
    assert series.x == [1, 2]
    assert series.y == pytest.approx([0.4, 0.6])
    assert series.half == pytest.approx([1.27062, 1.27062], rel=1e-5)
    # Every round is 3 MB in all.
    over_bytes = flex.series("server_global", lambda r: r.cumulated("bytes_down"))
    assert over_bytes.x == [2e6, 4e6]


def test_the_table_compares_after_the_last_round_that_all_have(
    runs: list[RunData], tmp_path: Path
) -> None:
    (tmp_path / "a1" / "report.html").touch()
    html = comparison_page(runs, tmp_path / "pages")
    means, differ, each = (rows(t) for t in re.findall("<table>.*?</table>", html))
    assert means[0][:4] == ["settings", "seeds", "rounds", "server_global"]
    assert means[1][:4] == ["flex-moe", "1, 2", "2-3", "0.6 ± 1.3"]
    assert means[2][:4] == ["fedavg", "1", "2", "0.2"]
    assert "After round 2, the last that all runs have." in html
    assert differ == [
        ["setting", "flex-moe", "fedavg"],
        ["strategy", "flex-moe", "fedavg"],
    ]
    # At their own ends: 0.9 after round 3.
    assert each[1][:6] == ["a1", "flex-moe", "1", "died", "3", "0.9"]
    assert [row[0] for row in each[1:]] == ["a1", "a2", "b1"]
    assert '<a href="../a1/report.html">a1</a>' in html
    assert html.count("<a ") == 1  # the others have no report


def test_groups_go_by_what_differs(tmp_path: Path) -> None:
    one = made(tmp_path / "1", [0.5], lr=0.1, seed=1)
    two = made(tmp_path / "2", [0.5], lr=0.2, seed=2)
    assert [group.name for group in grouped([one, two])] == ["lr=0.1", "lr=0.2"]
    assert differing([one, two]) == ["lr"]
    alike = made(tmp_path / "3", [0.5], lr=0.1, seed=1)
    [group] = grouped([one, alike])
    assert group.seeds == "1, 1"
    # Of more differences than can be read, names of runs.
    many = [
        made(tmp_path / f"m{n}", [0.5], **{key: n for key in ("a", "b", "c", "d")})
        for n in (1, 2)
    ]
    assert [group.name for group in grouped(many)] == ["m1", "m2"]
    assert grouped([one])[0].name == "flex-moe"
