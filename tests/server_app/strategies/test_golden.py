"""Golden metrics: no strategy changes silently.

Every registered name, and two of Flower's, runs three rounds of the real ServerApp and
ClientApp on digits with a fixed seed, the last of them resumed after a cut; the numbers
of the last round are compared with ``golden.json``. After a change that is meant to
move them, regenerate the file and say in the change why they moved::

    python -m tests.server_app.strategies.test_golden

Tolerances. Another CPU or torch version rounds sums differently, about 1e-7 per value,
which flips a few answers near a decision boundary; an answer is 1/359 of a global
accuracy. A relative change of 1e-6 in all initial weights moved no accuracy by more
than 0.0005, and torch without vector instructions none by more than 0.006. 0.02
leaves room above that; two local epochs instead of three move FedAvg's server_global by
0.05. Loads are whole numbers, so a different assignment changes the CV far more than
1e-3. Bytes follow from shapes, but for integers whose length depends on the machine.
"""

import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from server_app.commands.simulate import simulate
from server_app.launcher.signals import Interrupted
from server_app.run_folder.folder import RunFolder
from server_app.strategies import STRATEGIES

GOLDEN = Path(__file__).with_name("golden.json")
NAMES = [*sorted(STRATEGIES.built_in), "flwr:FedAdam", "flwr:Krum"]
KEEP = RunFolder.keep
CLIENTS = 6
CONFIG: dict[str, Any] = {
    "seed": 7,
    "num-rounds": 3,
    "num-experts": 4,
    "expert-capacity": "1:0.5,2:0.5",
    "partition": "dirichlet:1.0",
    # At higher rates a rounding error grows within three rounds: at 0.05, a relative
    # change of 1e-6 in the initial weights moved FedRolex by 0.04.
    "lr": 0.02,
    "local-epochs": 3,
    "batch-size": 8,
}
# What some algorithms cannot do without, or cannot be told apart without.
NEEDS: dict[str, dict[str, Any]] = {
    "cent-moe": {"reserved-samples": 300},
    "fed-moe": {"reserved-samples": 100},
    # Two epochs of fine-tuning cannot be told from none.
    "fedavg-ft": {"strategy-options": "epochs=15"},
    "fedbn": {"backbone": "cnn", "norm": "batch", "train-samples": 300},
    # Ten epochs of the head drown the body.
    "fedrep": {"strategy-options": "head-epochs=2"},
    # With what it is meant to be used with: golden for the settings as well.
    "flex-moe-plus": {
        "client-keep": 0.25,
        "label-prior": 1.0,
        "loss-calibration": 0.25,
        "server-average": 0.8,
    },
    # Two rounds of three with more than one model.
    "ifca": {"strategy-options": "clusters=2, warmup=1"},
    # The default mu of 0.01 cannot be told from FedAvg in three rounds.
    "fedprox": {"strategy-options": "mu=0.1"},
}
TOLERANCE: dict[str, dict[str, Any]] = {
    "server_global": {"abs": 0.02},
    "client_global": {"abs": 0.02},
    "client_local": {"abs": 0.02},
    "cv_cumulative": {"abs": 1e-3},
    # Scalars of 18 messages, of which ``local`` sends nothing else.
    "bytes_down": {"rel": 0.01, "abs": 3000},
    "bytes_up": {"rel": 0.01, "abs": 3000},
}


def cut_after_the_second(run: RunFolder, server_round: int, *given: Any) -> None:
    """Keep a round as ever; with the second one the power goes."""
    KEEP(run, server_round, *given)
    if server_round == 2:
        raise Interrupted


def measured(name: str) -> dict[str, float | None]:
    """Run one strategy, cut off after two rounds and resumed; return its numbers.

    They are those of the last round, and the bytes of all.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = {"output-dir": f"{folder}/out", "state-dir": f"{folder}/state"}
        config = {**CONFIG, **NEEDS.get(name, {}), "strategy": name, **places}
        cut = patch.object(RunFolder, "keep", cut_after_the_second)
        with cut, suppress(Interrupted):
            simulate(config, CLIENTS)
        [run] = Path(folder, "out").iterdir()
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
        simulate({**config, "resume-from": str(run)}, CLIENTS)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        rounds = [json.loads(line) for line in lines]
    assert len(rounds) == CONFIG["num-rounds"]
    assert not any(record["rejected"] for record in rounds)
    last = {key: rounds[-1][key] for key in TOLERANCE if "bytes" not in key}
    total = {
        key: sum(record[key] for record in rounds) for key in ("bytes_down", "bytes_up")
    }
    return {**last, **total}


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, float | None]]:
    content: dict[str, dict[str, float | None]] = json.loads(GOLDEN.read_text())
    return content


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_those_of_the_golden_file(
    name: str, golden: dict[str, dict[str, float | None]]
) -> None:
    assert name in golden, f"{name} is new: regenerate golden.json (see above)"
    found = measured(name)
    for key, tolerance in TOLERANCE.items():
        expected = golden[name][key]
        if expected is None:  # nobody evaluates: no client takes part
            assert found[key] is None, key
        else:
            assert found[key] == pytest.approx(expected, **tolerance), key


def test_every_golden_name_exists(golden: dict[str, Any]) -> None:
    assert sorted(golden) == sorted(NAMES)


def regenerate() -> None:
    """Write ``golden.json`` anew."""
    numbers = {}
    for name in NAMES:
        numbers[name] = measured(name)
        print(name, numbers[name], file=sys.stderr)
    GOLDEN.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    regenerate()
