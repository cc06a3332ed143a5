"""The study's harness: what is kept of a run, intervals by hand, resuming."""

import csv
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.study.__main__ import chosen, run_missing
from benchmarks.study.cells import ACCURACIES, Cell, read_lines, summary
from benchmarks.study.costs import costs_of
from benchmarks.study.presets import PRESETS
from benchmarks.study.runner import Processes
from benchmarks.study.tables import (
    cell_text,
    compact,
    markdown,
    paired,
    write_csv,
)
from common.hub import load_weights
from common.settings import Settings
from server_app.strategies import find_strategy
from tests.checkpoints import save
from tests.server_app.strategies.test_text import texts

ROOT = Path(__file__).resolve().parents[2]


def cell_of(label: str = "random", seed: int = 0, **config: Any) -> Cell:
    return Cell(
        table="main",
        dataset="digits",
        partition="iid",
        label=label,
        seed=seed,
        clients=3,
        config={"strategy": label, **config},
    )


def record(number: int, server: float | None, local: list[float]) -> dict[str, Any]:
    return {
        "round": number,
        "server_global": server,
        "client_global": server,
        "client_local": server,
        "cv_cumulative": 1 / number,
        "bytes_down": 600_000,
        "bytes_up": 400_000,
        "seconds": 0.5,
        "clients": [{"client_local": value} for value in local],
    }


def test_a_run_is_summed_up_by_its_last_two_evaluations() -> None:
    rounds = [
        record(1, 0.1, [0.9, 0.9]),
        record(2, 0.4, [0.2, 0.8]),
        record(3, None, []),
        record(4, 0.6, [0.4, 0.9]),
    ]
    found = summary(rounds)
    assert found["server_global"] == pytest.approx(0.5)
    assert found["worst_tenth"] == pytest.approx(0.3)
    assert found["cv_cumulative"] == 0.25
    assert found["MB"] == pytest.approx(4)
    assert found["seconds"] == 2
    assert [point[:3] for point in found["curve"]] == [
        [1, 1, 0.1],
        [2, 2, 0.4],
        [4, 4, 0.6],
    ]


def test_the_balance_of_each_layer_is_a_column_where_there_are_several(
    tmp_path: Path,
) -> None:
    deep = {**record(1, 0.5, [0.5]), "cv_layer_1": 0.25, "cv_layer_2": 0.75}
    cell, flat = cell_of(), cell_of("greedy")
    lines = {
        c.key: {**summary([r]), "partition": "iid", "dataset": "digits", "seed": 0}
        | {"clients": 3}
        for c, r in ((cell, deep), (flat, record(1, 0.5, [0.5])))
    }
    text = markdown([cell, flat], lines).splitlines()
    assert text[2].endswith("| seconds | cv_layer_1 | cv_layer_2 |")
    assert text[4].endswith("| 0.250 | 0.750 |")
    assert text[5].endswith("| - | - |")
    assert "cv_layer" not in markdown([flat], lines)
    write_csv(tmp_path / "table.csv", [cell, flat], lines)
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["cv_layer_2"] for row in rows] == ["0.75", ""]


def test_intervals_are_students() -> None:
    # Mean 2, standard deviation 1, t(2) = 4.303: half width 4.303 / sqrt(3) = 2.484.
    assert cell_text([1.0, 2.0, 3.0]) == "2.000 ± 2.484"
    assert cell_text([None]) == "-"


def test_differences_are_of_the_same_seed() -> None:
    values: dict[tuple[str, int], float | None] = {
        ("fedavg", 0): 0.5,
        ("fedavg", 1): 0.75,
        ("fedavg", 2): 0.125,
    }
    values |= {("kin", 0): 0.625, ("kin", 1): 0.75, ("local", 0): None}
    cells = [cell_of(label, seed) for label, seed in values]
    lines = {
        c.key: {"server_global": value, "client_global": 0.25, "client_local": 0.25}
        for c, value in zip(cells, values.values(), strict=True)
    }
    text = paired(cells, lines, "fedavg").splitlines()
    assert text[0] == "**main: digits, iid, minus fedavg**"
    assert text[2].endswith("server_global | client_global | client_local |")
    # 0.125 and 0: mean 0.0625, s = 0.125 / sqrt 2, t(1) = 12.706: 12.706 * 0.0625.
    assert text[4] == "| kin | 2 | +0.062 ± 0.794 | +0.000 ± 0.000 | +0.000 ± 0.000 |"
    assert text[5] == "| local | 1 | - | +0.000 | +0.000 |"
    assert paired(cells, lines, "nobody") == ""


def test_all_cells_in_one_table_beside_a_peers_bytes() -> None:
    cells, lines = [], {}
    for partition, shift in (("iid", 0.0), ("rotation:4", 0.25)):
        for label, megabytes, cv, gain in (
            ("fedavg", 4.0, 0.0, 0.0),
            ("flex-moe", 8.0, 0.005, 0.0),
            ("kin", 8.5, 0.0, shift),
        ):
            for seed in (0, 1):
                c = replace(cell_of(label, seed), partition=partition)
                cells.append(c)
                lines[c.key] = dict.fromkeys(ACCURACIES, 0.5 + gain) | {
                    "worst_tenth": 0.25 + gain,
                    "MB": megabytes,
                    "cv_cumulative": cv + 0.0078125 * seed,
                }
    text = compact(cells, lines, "kin", "fedavg", "flex-moe").splitlines()
    same = " | ".join(["+0.000 ± 0.000"] * 4)
    more = " | ".join(["+0.250 ± 0.000"] * 4)
    assert text[4] == f"| digits | iid | 2 | {same} | - | - | 0.0078 | 1.0625 |"
    assert text[5] == f"| digits | rotation:4 | 2 | {more} | - | - | 0.0078 | 1.0625 |"
    assert compact(cells, lines, "kin", "nobody", "flex-moe") == ""


def test_what_a_strategy_costs_a_device_follows_from_its_settings() -> None:
    dense, ifca, ditto, mixture, soft = (
        costs_of(cell_of(label), "data")
        for label in ("fedavg", "ifca", "ditto", "flex-moe", "flex-moe-plus")
    )
    # Two epochs of its own model beside two of the shared; four thirds for four models.
    assert ditto["GFLOP"] == pytest.approx(2 * dense["GFLOP"])
    assert ifca["GFLOP"] == pytest.approx((2 + 4 / 3) / 2 * dense["GFLOP"])
    # Two experts are held; a sample trains one of them, or both where routing is soft.
    assert dense["GFLOP"] < mixture["GFLOP"] < soft["GFLOP"] < 2 * dense["GFLOP"]
    assert dense["device_MB"] < mixture["device_MB"] < ifca["device_MB"]
    assert costs_of(cell_of("fedavg", seed=9), "data") == dense


def test_what_is_frozen_costs_a_device_memory_and_work(tmp_path: Path) -> None:
    (tmp_path / "opinions.jsonl").write_text("\n".join(texts(60)) + "\n")
    base = save("bert", tmp_path / "bert")
    made: dict[str, Any] = {
        "backbone": "pretrained",
        "pretrained": base,
        "text-length": 8,
        "moe-layers": "3",
    }
    cell = replace(cell_of("flex-moe", **made), dataset="opinions")
    costs = costs_of(cell, str(tmp_path))
    weights = sum(p.numel() for p in load_weights(base).parameters())
    assert costs["device_MB"] * 1e6 > 4 * weights
    assert costs["GFLOP"] > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_every_run_of_a_preset_is_one_the_product_accepts(preset: str) -> None:
    for cell in {c.key: c for c in PRESETS[preset]()}.values():
        settings = Settings.from_run_config(cell.run_config)
        find_strategy(settings.run.strategy).parse_options(settings)


def test_a_cell_in_two_tables_is_run_once() -> None:
    keys = {c.key: c.table for c in PRESETS["quick"]()}
    shared = [c for c in PRESETS["ablations"]() if c.key in keys]
    assert {(c.table, c.label) for c in shared} == {
        ("plus", "flex-moe-plus"),
        ("flex", "flex-moe"),
    }


def test_only_keeps_what_has_every_word() -> None:
    cells = PRESETS["quick"]()
    some = chosen(cells, "main, cifar10, classes:2, seed=1")
    assert {"flex-moe", "fedavg", "fedavg + tricks", "kin"} < {c.label for c in some}
    assert len(some) == len({c.label for c in some})
    assert chosen(cells, "nothing-like-it") == []


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    small: dict[str, Any] = {"num-rounds": 1, "train-samples": 200, "local-epochs": 1}
    good = [cell_of(seed=seed, **small) for seed in (0, 1)]
    bad = cell_of("random", 2, **{**small, "strategy-options": "no-such-option=1"})
    out = tmp_path / "study" / "runs.jsonl"
    _, failures = run_missing(good[:1], out, Processes(1), "data")
    assert failures == 0
    first = out.read_text()
    with out.open("a") as file:
        file.write('{"key": "cut off')  # the machine stopped in the middle of a line
    lines, failures = run_missing([*good, bad], out, Processes(2), "data")
    assert failures == 1
    assert set(lines) == {cell.key for cell in good}
    assert out.read_text().startswith(first)
    assert {line["key"] for line in read_lines(out)} == set(lines)
    write_csv(tmp_path / "table.csv", good, lines)
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert rows[0]["server_global"] == str(lines[good[0].key]["server_global"])
    assert "| random | 2 |" in markdown(good, lines)


KILLED = """
from pathlib import Path
from benchmarks.study.runner import Processes, run_all
from tests.benchmarks.test_study import cell_of
if __name__ == "__main__":
    endless = cell_of(**{"num-rounds": 100_000, "train-samples": 200})
    list(run_all([endless], Path("runs.jsonl"), Processes(1), "data"))
"""


@pytest.mark.slow
def test_a_study_that_is_killed_takes_its_runs_with_it(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(KILLED)
    study = subprocess.Popen(
        [sys.executable, "study.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    try:
        while not [*tmp_path.glob("tmp*/*")]:  # a run's directory: it is in the middle
            assert study.poll() is None
            time.sleep(0.1)
        workers = psutil.Process(study.pid).children(recursive=True)
    finally:
        study.kill()
        study.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for worker in alive:
        worker.kill()
    assert workers and not alive
