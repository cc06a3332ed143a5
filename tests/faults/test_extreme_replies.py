"""Ten thousand replies of extreme numbers, all of them allowed: no run ends by them.

Whole runs of every strategy that merges or learns in its own way. The devices train
nothing: they answer each order with the largest, smallest and oddest numbers that the
contract lets pass. These go through the door, ``merge``, ``learn``, the next plans,
the log, the run's files, the report and the loggers.
"""

import json
import logging
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from safetensors.numpy import load_file

from client_app.session import Session
from common import wire
from common.code_hash import code_hash
from common.inline_grid import InlineGrid
from common.moe import GATE, ModelSpec
from common.shape import ordered_spec
from common.wire import Packing, TrainOrder, TrainReport
from tests.whole_runs import app_with, only_run, serve

REPLIES = 10_000
CLIENTS = 60
LARGEST = sys.float_info.max
TIMED = {"train-seconds": 9.0}
STRATEGIES: list[tuple[str, dict[str, Any]]] = [
    ("flex-moe", {"callbacks": "tensorboard"}),
    ("flex-moe", {"fitness": "loss", "merging": "clipped"}),
    ("flex-moe-plus", {"merging": "trimmed-mean"}),
    ("greedy", {"merging": "median", "upload-dtype": "int8"}),
    ("fedavg", {"upload-dtype": "float16"}),
    (
        "system-level",
        {"strategy-options": "capacity='estimated'", "train-seconds": 9.0},
    ),
    ("fedmix", {}),
    ("avg-moe", {}),
    ("fedjets", {}),
    ("hfedmoe", {}),
    ("fedrolex", {}),
    ("fed-moe", {"reserved-samples": 40}),
    ("flwr:FedAdam", {}),
]
ROUNDS = -(-REPLIES // (CLIENTS * len(STRATEGIES)))
TINY = float(np.finfo(np.float32).smallest_subnormal)


def vector(rng: random.Random, size: int) -> np.ndarray:
    """Return a change whose RMS is at most 9.9, whatever single values are."""
    kind = rng.randrange(6)
    if kind == 0:  # all of it in one place
        value = np.zeros(size, np.float32)
        value[rng.randrange(size)] = rng.choice([-9.9, 9.9]) * size**0.5
        return value
    scale = rng.choice([0.0, -0.0, TINY, -TINY, 1e-38, 9.9, -9.9])
    if kind == 1:
        return np.full(size, scale, np.float32)
    signs = np.random.default_rng(rng.randrange(2**32)).choice([-1, 1], size)
    return (scale * signs).astype(np.float32)


def shares(rng: random.Random, size: int) -> list[float]:
    return [rng.choice([0.0, -0.0, 1.0, 5e-324, 0.5]) for _ in range(size)]


def losses(rng: random.Random, size: int) -> list[float]:
    return [rng.choice([0.0, 5e-324, LARGEST, 2.3]) for _ in range(size)]


def own_metrics(rng: random.Random) -> dict[str, float]:
    names = [f"{number:x>40}" for number in range(rng.choice([0, 1, 16]))]
    return {name: rng.choice([0.0, -0.0, 5e-324, LARGEST, -LARGEST]) for name in names}


def counts(rng: random.Random, size: int, most: int) -> list[int]:
    return [rng.choice([0, 1, most]) for _ in range(size)]


def extreme(
    rng: random.Random, order: TrainOrder, whole: ModelSpec, client: str, most: int
) -> RecordDict:
    spec = ordered_spec(whole, order)
    held, everyone = len(order.experts), spec.num_units
    num_examples = rng.choice([1, most])
    seconds = rng.choice([0.0, 5e-324, LARGEST])
    report = TrainReport(
        server_round=order.server_round,
        client=client,
        code_hash=code_hash(),
        num_examples=num_examples,
        expert_samples=counts(rng, held, num_examples),
        expert_accuracy=shares(rng, held),
        expert_loss=losses(rng, held),
        gate_mass=shares(rng, everyone) if order.report_gate else [],
        responsibility=shares(rng, held) if order.report_gate else [],
        input_information=[0.37 * share for share in shares(rng, everyone)]
        if order.report_information
        else [],
        label_information=[0.37 * share for share in shares(rng, everyone)]
        if order.report_information
        else [],
        train_loss=losses(rng, 1)[0],
        client_global=rng.choice([None, 0.0, 1.0]),
        client_local=rng.choice([None, 0.0, 1.0]),
        seconds_train=seconds,
        seconds_total=seconds,
        memory_bytes=rng.choice([0, 2**53 - 1]),
        memory_available=rng.choice([None, 2**53 - 1]),
        memory_peak=rng.choice([None, 0, 2**53 - 1]),
        expert_cap=rng.choice([0, 1, 10**6]),
        metrics=own_metrics(rng),
    )
    parts = order.returned_parts()
    packing = Packing(
        dtype=order.upload_dtype, layouts={part: spec.layout(part) for part in parts}
    )
    vectors = {part: vector(rng, spec.size(part)) for part in parts}
    if order.upload_dtype != "float32":  # rounding must not carry it over the limit
        vectors = {k: (v if k == GATE else 0.9 * v) for k, v in vectors.items()}
    return wire.encode_report(report, wire.pack(vectors, packing))


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(STRATEGIES)))
def test_extreme_but_valid_numbers_end_no_run(
    case: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    strategy, more = STRATEGIES[case]
    rng = random.Random(case)
    known: dict[int, tuple[ModelSpec, str, int]] = {}

    def train(message: Message, context: Context) -> Message:
        order = wire.decode_order(message.content)
        node = int(context.node_config["partition-id"])
        if node not in known:
            session = Session(context)
            known[node] = session.spec, session.client, session.num_examples
        return Message(extreme(rng, order, *known[node]), reply_to=message)

    config = {
        "strategy": strategy,
        "num-experts": 4,
        "num-rounds": ROUNDS,
        "eval-every": 10,
        "test-samples": 20,
        "output-dir": str(tmp_path),
        **more,
    }
    serve(config, InlineGrid(app_with(train=train), CLIENTS, config))

    folder = only_run(tmp_path)
    assert (folder / "report.html").stat().st_size > 1_000
    lines = (folder / "metrics.jsonl").read_text().splitlines()

    def no_constant(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    rounds = [json.loads(line, parse_constant=no_constant) for line in lines]
    assert [record["round"] for record in rounds] == [*range(1, ROUNDS + 1)]
    assert all(record["merged"] for record in rounds)
    assert {why for record in rounds for why in record["rejected"].values()} == set()
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert np.isfinite(tensor).all(), name
    assert "is given up" not in caplog.text
