"""An order and a report that answers it, made by hand."""

from typing import Any

import numpy as np

from common.wire import TrainOrder, TrainReport

ORDER = TrainOrder(
    run="r", server_round=3, experts=[1, 4], num_experts=8, top_k=1, evaluate=True
)


SIZES = {"extractor": 4, "expert.1": 2, "expert.4": 2}


def report(**changes: Any) -> TrainReport:
    fields: dict[str, Any] = {
        "server_round": 3,
        "client": "client-0",
        "code_hash": "abc",
        "num_examples": 10,
        "expert_samples": [6, 4],
        "expert_accuracy": [0.5, 1.0],
        "expert_loss": [0.7, 0.1],
    }
    return TrainReport(**{**fields, **changes})


def deltas() -> dict[str, Any]:
    return {name: np.zeros(size, np.float32) for name, size in SIZES.items()}
