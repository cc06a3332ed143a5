"""What a device measures of its own: reported after training, and never in its way."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from client_app.app import app
from common import wire
from common.inline_grid import InlineGrid
from common.moe import Vector
from common.settings import Settings
from common.shape import dataset_of, model_spec
from common.wire import TrainOrder, TrainReport
from server_app.commands.simulate import simulate
from server_app.report.run_data import read_run

HERE = __name__
CONFIG: dict[str, Any] = {"local-epochs": 1, "dataset": "digits", "seed": 3}


def useful(model: Any, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    assert not model.training and not torch.is_grad_enabled()
    right = (model(x).logits.argmax(1) == y).double().mean()
    return {"own-accuracy": right, "held-out": len(y), "half": np.float32(0.5)}


def failing(*_: Any) -> dict[str, float]:
    raise TimeoutError("the sensor is gone: \u2603\nand more")


def too_many(*_: Any) -> dict[str, float]:
    return {f"n{number}": 0.0 for number in range(17)}


def not_finite(*_: Any) -> dict[str, float]:
    return {"fine": 1.0, "not": math.nan}


def no_numbers(*_: Any) -> dict[str, str]:
    return {"board": "a raspberry"}


def badly_named(*_: Any) -> dict[str, float]:
    return {"two words": 1.0}


def nothing(*_: Any) -> None:
    return None


def spoiling(model: Any, *_: Any) -> dict[str, float]:
    for values in model.state_dict().values():
        values.zero_()
    return {"spoilt": 1.0}


def answered(
    metric: str, *, train: bool = True, evaluate: bool = True
) -> tuple[TrainReport, dict[str, Vector]]:
    """Return what client-0 answers to an order."""
    config = {**CONFIG, "client-metrics": f"{HERE}:{metric}" if metric else ""}
    grid = InlineGrid(app, 4, config)
    settings = Settings.from_run_config(config)
    spec = model_spec(settings, dataset_of(settings))
    order = TrainOrder(
        run="r",
        server_round=1,
        experts=[0, 1],
        num_experts=8,
        top_k=1,
        train=train,
        evaluate=evaluate,
    )
    parts = spec.initial(3, ["extractor", "expert.0", "expert.1"])
    message = Message(wire.encode_order(order, wire.pack(parts)), 1, "train")
    [reply] = grid.send_and_receive([message])
    assert not reply.has_error(), reply.error.reason
    return wire.decode_report(reply.content)


def test_numbers_of_the_own_held_out_samples_are_reported_after_training() -> None:
    report, _ = answered("useful")
    assert set(report.metrics) == {"own-accuracy", "held-out", "half"}
    assert report.metrics["half"] == 0.5
    # The same samples, measured by the same rule.
    assert report.metrics["own-accuracy"] == pytest.approx(report.client_local)
    assert report.metrics["held-out"] > 0
    assert report.warnings == []


def test_a_metric_meets_a_model_to_predict_with_in_every_round() -> None:
    report, _ = answered("useful", evaluate=False)
    assert report.client_local is None
    assert set(report.metrics) == {"own-accuracy", "held-out", "half"}


@pytest.mark.parametrize("metric", ["useful", ""])
def test_without_training_or_a_metric_there_are_none(metric: str) -> None:
    report, _ = answered(metric, train=not metric)
    assert report.metrics == {}


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("failing", r"TimeoutError: the sensor is gone: \?"),
        ("too_many", "metrics: .* at most 16 items"),
        ("not_finite", "metrics.not is nan"),
        ("no_numbers", "could not convert string to float"),
        ("badly_named", "'two words': must be 1 to 40 letters"),
        ("nothing", "AttributeError"),
    ],
)
def test_what_cannot_be_reported_costs_a_warning_and_no_training(
    metric: str, why: str
) -> None:
    report, deltas = answered(metric)
    without, expected = answered("")
    assert report.metrics == {}
    [warning] = report.warnings
    assert f"client-metrics {HERE}:{metric} is left out: " in warning
    assert deltas.keys() == expected.keys()
    for part in deltas:
        np.testing.assert_array_equal(deltas[part], expected[part])
    assert report.client_local == without.client_local
    assert re.search(why, warning)


def test_a_metric_that_spoils_the_model_changes_nothing_that_is_sent_or_kept() -> None:
    report, deltas = answered("spoiling")
    without, expected = answered("")
    assert report.metrics == {"spoilt": 1.0}
    assert (report.client_local, report.client_global) == (
        without.client_local,
        without.client_global,
    )
    for part in deltas:
        np.testing.assert_array_equal(deltas[part], expected[part])


def test_a_device_that_lacks_the_metric_says_so_when_asked_who_it_is() -> None:
    config = {**CONFIG, "client-metrics": f"{HERE}:there_is_none"}
    grid = InlineGrid(app, 4, config)
    [reply] = grid.send_and_receive([Message(RecordDict(), 1, "query")])
    refusal = wire.decode_refusal(reply.content)
    assert refusal is not None and refusal.client == "client-0"
    assert re.search("client-metrics = .*there_is_none", refusal.reason)


def test_own_numbers_reach_the_run_log_by_client_and_their_mean_by_name(
    tmp_path: Path,
) -> None:
    simulate(
        {
            "num-rounds": 1,
            "num-experts": 4,
            "local-epochs": 1,
            "train-samples": 200,
            "test-samples": 20,
            "client-metrics": f"{HERE}:useful",
            "output-dir": str(tmp_path),
        },
        3,
    )
    [path] = tmp_path.iterdir()
    [record] = read_run(path).rounds
    own = [client["metrics"]["own-accuracy"] for client in record["clients"]]
    assert own == pytest.approx([c["client_local"] for c in record["clients"]])
    assert record["metrics.own-accuracy"] == pytest.approx(sum(own) / 3)
    assert record["metrics.half"] == 0.5
