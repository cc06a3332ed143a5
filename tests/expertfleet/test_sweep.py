"""Sweeps: what is run, one that is killed and gone on with, and what comes of it."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from expertfleet.cli import main
from expertfleet.sweep.one_run import is_done, newest_run
from expertfleet.sweep.sweep_plan import planned, seeds_of, values_of
from expertfleet.sweep.workers import in_processes
from server_app.launcher.config import RunConfigError
from server_app.run_folder.run_files import read_metrics

DEFAULTS = {"strategy": "flex-moe", "lr": 0.05, "strategy-options": "", "top-k": 1}
SMALL = "train-samples=200 test-samples=60 num-experts=4 local-epochs=1"


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("strategy=flex-moe,fedavg", "strategy", ["flex-moe", "fedavg"]),
        ("lr=0.05,0.1", "lr", [0.05, 0.1]),
        ("top-k=1", "top-k", [1]),
        ('strategy-options="a=1,b=2","c"', "strategy-options", ["a=1,b=2", "c"]),
    ],
)
def test_values_of_a_setting(text: str, key: str, values: list[object]) -> None:
    assert values_of(text, DEFAULTS) == (key, values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr", "key=value,value"),
        ("lr=0.1,", "key=value,value"),
        ("rl=0.1", "unknown setting 'rl'"),
        ("lr=0.1,0.10", "a value twice"),
        ("lr=fast", "'lr=fast' is not valid"),
        ("seed=1,2", "use --seeds"),
        ("output-dir=a", "use --out"),
    ],
)
def test_what_are_no_values_is_one_line(text: str, said: str) -> None:
    with pytest.raises(RunConfigError, match=re.escape(said)):
        values_of(text, DEFAULTS)


def test_seeds() -> None:
    assert seeds_of("0-2") == [0, 1, 2]
    assert seeds_of("7,0-1,1") == [7, 0, 1]
    for wrong in ("", "2-1", "a", "0-", "-1", "1;2", "0-99999999"):
        with pytest.raises(RunConfigError, match="seeds = "):
            seeds_of(wrong)


def test_seeds_are_outermost() -> None:
    plan = planned({"a": [1, 2], "b": ["x"]}, [5, 6], {"c": 0}, 3)
    assert [each.label for each in plan] == [
        "a=1 b=x seed=5",
        "a=2 b=x seed=5",
        "a=1 b=x seed=6",
        "a=2 b=x seed=6",
    ]
    assert plan[1].config == {"c": 0, "a": 2, "b": "x", "seed": 5}
    assert len({each.folder for each in plan}) == 4


def half(task: int) -> float:
    if task == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return task / 2


@pytest.mark.slow
def test_a_process_that_dies_costs_its_own_task() -> None:
    ended = sorted(in_processes(half, [0, 1, 2], 2))
    assert ended[1:] == [(1, 0.5, ""), (2, 1.0, "")]
    assert ended[0][:2] == (0, None) and "was killed" in ended[0][2]


def words(out: Path, rounds: int, *more: str) -> list[str]:
    config = f"num-rounds={rounds} {SMALL}"
    given = ["--set", "strategy=flex-moe,fedavg", "--seeds", "0-1", "--clients", "3"]
    return ["sweep", *given, "-c", config, "--out", str(out), "--processes", "2", *more]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_ended_goes_on_where_it_was(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    command = [sys.executable, "-m", "expertfleet", *words(out, 10)]
    first = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        # In the middle of the first two runs.
        while len([*out.glob("*/*/checkpoints/round-*")]) < 2:
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        workers = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(number)
        said = first.communicate(timeout=600)
    finally:
        first.kill()
        first.wait()
    _, alive = psutil.wait_procs(workers, timeout=600)
    assert workers and not alive
    if number == signal.SIGINT:
        assert first.returncode == 130
        assert said[1].endswith("interrupted: the same command goes on\n")
        assert "Traceback" not in said[1]
    begun = {path.parent.parent: path.parent for path in out.glob("*/*/run.json")}
    done_before = [place for place in begun if is_done(place)]
    assert len(done_before) < 4
    assert main(words(out, 10)) == 0
    shown = capsys.readouterr()
    # What was begun is gone on with: no second run beside it.
    assert {path.parent.parent for path in out.glob("*/*/run.json")} >= begun.keys()
    for place, run in begun.items():
        if read_metrics(run)[0]:
            assert newest_run(place) == run
    for place in out.glob("*-s*"):
        found = newest_run(place)
        assert found is not None and is_done(place)
        assert [line["round"] for line in read_metrics(found)[0]] == [*range(1, 11)]
    table = [re.split("  +", line) for line in shown.out.splitlines()]
    assert [row[:2] for row in table[1:3]] == [["flex-moe", "0, 1"], ["fedavg", "0, 1"]]
    assert all("±" in cell for row in table[1:3] for cell in row[2:])
    with (out / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["strategy"], row["seed"]) for row in rows] == [
        ("flex-moe", "0"),
        ("fedavg", "0"),
        ("flex-moe", "1"),
        ("fedavg", "1"),
    ]
    # By hand: of two values the mean, and 12.706 / sqrt(2) deviations, half apart.
    one, two = (float(rows[k]["client_local"]) for k in (0, 2))
    column = table[0].index("client_local")
    middle, half = map(float, table[1][column].split(" ± "))
    digits = len(table[1][column].split(" ± ")[1].partition(".")[2])
    assert middle == pytest.approx((one + two) / 2, abs=0.6 * 10**-digits)
    assert half == pytest.approx(12.706 * abs(one - two) / 2, abs=0.6 * 10**-digits)
    html = (out / "comparison.html").read_text()
    assert "4 runs of 2 settings" in html
    assert f'href="{rows[0]["run"]}/report.html"' in html

    assert main(words(out, 10)) == 0
    assert "4 of 4 runs are done already" in capsys.readouterr().err
    assert main(words(out, 11)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "is the directory of another sweep" in line


def test_a_sweep_looks_at_every_run_before_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    for given, said in (
        (["--set", "lr=0.1,-1"], "lr"),
        (["--set", "lr=0.1", "--set", "lr=0.2"], "'lr' is given twice"),
        (["--set", "lr=0.1", "-c", "lr=0.2"], "'lr' is in both"),
        (["-c", "seed=3"], "'seed' is the sweep's own"),
        (["--clients", "0"], "clients = "),
        (["--processes", "2", "--ray-address", "h:1"], "exclude each other"),
    ):
        assert main(["sweep", *given, "--out", str(out)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and said in line
    assert not out.exists()
