"""A cause that many clients share is told once."""

from pathlib import Path

import pytest

from server_app.commands.simulate import simulate
from server_app.fleet.reasons import grouped
from server_app.run_error import RunError


def test_one_cause_of_a_thousand_is_one_short_line() -> None:
    reasons = {f"node {i}": "1438 samples are too few" for i in range(1000)}
    assert grouped(reasons) == [
        "node 0, node 1, node 2, node 3 and 996 others: 1438 samples are too few"
    ]


def test_the_most_frequent_comes_first_and_the_number_of_lines_is_bounded() -> None:
    reasons = {f"c{i}": f"reason {i}" for i in range(7)} | {"a": "loss", "b": "loss"}
    lines = grouped(reasons)
    assert lines[0] == "a, b: loss"
    assert lines[1:5] == [f"c{i}: reason {i}" for i in range(4)]
    assert lines[5:] == ["3 others: 3 other reasons"]


def test_what_a_client_sent_is_cut() -> None:
    assert len(grouped({"x" * 10**6: "y" * 10**6})[0]) < 1000
    five = grouped({name: "r" for name in "abcde"})
    assert five == ["a, b, c, d and 1 other: r"]
    assert grouped({}) == []


def test_a_fleet_that_is_refused_for_one_reason_is_told_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config: dict[str, str | int] = {"num-rounds": 1, "train-samples": 150}
    config["output-dir"] = str(tmp_path)
    # The launcher says this at once; a real fleet meets it here.
    with pytest.raises(RunError, match="too few for 100 clients") as caught:
        simulate(config, 100)
    assert len(str(caught.value)) < 1000
    [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith("refused: ")
    assert " and 96 others: " in warning
    [folder] = tmp_path.iterdir()
    assert len(list(folder.iterdir())) < 10
