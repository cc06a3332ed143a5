"""A small run whose devices differ, from its settings to its report.

The tolerance is that of the golden metrics (``tests/server_app/strategies``).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from server_app.commands.simulate import simulate
from server_app.report.pages import run_page
from server_app.report.run_data import read_run

CONFIG: dict[str, Any] = {
    "strategy": "fedavg",
    "partition": "rotation:2+concept:3/1+dirichlet:1.0",
    "seed": 7,
    "num-rounds": 4,
    "local-epochs": 3,
    "batch-size": 8,
    "lr": 0.02,
}
CLIENTS = 4


def run(folder: Path, config: dict[str, Any], **options: Any) -> Path:
    simulate({**config, "output-dir": str(folder)}, CLIENTS, **options)
    [path] = folder.iterdir()
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the rounds without what a clock says."""
    rounds = [json.loads(one) for one in (path / "metrics.jsonl").open()]
    for record in rounds:
        del record["seconds"], record["ended"]
        for client in record["clients"]:
            del client["seconds"], client["seconds_until_reply"]
    return rounds


def test_a_run_whose_devices_differ(tmp_path: Path) -> None:
    path = run(tmp_path / "1", CONFIG)
    rounds = lines(path)
    last = rounds[-1]
    # Two pairs of groups have one client each, one has two.
    own: dict[str, list[float]] = {}
    for client in last["clients"]:
        own.setdefault(client["domain"], []).append(client["client_global"])
    assert sorted(map(len, own.values())) == [1, 1, 2]
    means = [sum(values) / len(values) for values in own.values()]
    assert last["worst_group"] == pytest.approx(min(means))
    # FedAvg has one model, so everybody would be handed the global one.
    assert last["served"] == pytest.approx(last["server_global"])
    for key, expected in {
        "server_global": 0.5905,
        "client_global": 0.8148,
        "worst_group": 0.6992,
        "client_local": 0.8944,
    }.items():
        assert last[key] == pytest.approx(expected, abs=0.02), key
    assert lines(run(tmp_path / "2", CONFIG, serialise=True)) == rounds
    page = run_page(read_run(path))
    assert "worst_group" in page and ">served<" in page


def test_a_run_whose_devices_do_not_says_nothing_of_it(tmp_path: Path) -> None:
    path = run(tmp_path, {**CONFIG, "partition": "iid", "num-rounds": 1})
    [line] = lines(path)
    said = {*line, *line["clients"][0]}
    assert not said & {"served", "worst_group", "domain"}
    page = run_page(read_run(path))
    assert "worst_group" not in page and ">served<" not in page
