"""Views and replies made by hand, for tests that work an algorithm out on paper."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.moe import ModelSpec, Vector
from common.wire import QueryReply, TrainOrder, TrainReport
from server_app.assignment import ExpertLayers
from server_app.strategies.base import Reply, View

ORDER_FIELDS = set(TrainOrder.model_fields)


def spec_of(
    num_experts: int,
    *,
    input_shape: tuple[int, ...] = (1, 2, 2),
    expert_hidden: int = 2,
) -> ModelSpec:
    """A model of two classes that is small enough for paper."""
    return ModelSpec(
        backbone="mlp",
        input_shape=input_shape,
        num_classes=2,
        num_experts=num_experts,
        expert_hidden=expert_hidden,
        top_k=1,
    )


def view_of(budgets: Sequence[int], num_experts: int, **fields: Any) -> View:
    """What a strategy sees of participants with these budgets, one row each."""
    count = len(budgets)
    given: dict[str, Any] = {
        "server_round": 1,
        "clients": np.arange(count),
        "num_clients": count,
        "budgets": np.array(budgets, dtype=np.int64),
        "layers": ExpertLayers(num_experts=num_experts),
        "previous": np.zeros((count, num_experts), bool),
        "at_work": np.zeros((0, num_experts), bool),
        "profiles": (),
        "fleet": tuple(profile() for _ in budgets),
        "rng": np.random.default_rng(0),
    }
    return View(**{**given, **fields})


def profile(**fields: Any) -> QueryReply:
    """What a device says about itself."""
    given: dict[str, Any] = {
        "client": "c",
        "partition_id": 0,
        "num_partitions": 1,
        "num_examples": 100,
        "code_hash": "",
        "partition_hash": "",
    }
    return QueryReply(**{**given, **fields})


def reply_of(
    client: int,
    experts: Sequence[int],
    samples: Sequence[int],
    deltas: Mapping[str, Vector] | None = None,
    *,
    num_experts: int,
    **fields: Any,
) -> Reply:
    """An accepted reply; ``fields`` go to the order or the report, whichever has them.

    ``num_examples`` is the sum of ``samples`` unless given.
    """
    both = {"server_round": fields.pop("server_round", 1)}
    order = {k: fields.pop(k) for k in list(fields) if k in ORDER_FIELDS}
    nothing = [0.0] * len(experts)
    report = {
        "client": "c",
        "code_hash": "",
        "num_examples": sum(samples),
        "expert_samples": list(samples),
        "expert_accuracy": nothing,
        "expert_loss": nothing,
        **fields,
    }
    return Reply(
        client=client,
        order=TrainOrder(
            **{
                "run": "r",
                "experts": list(experts),
                "num_experts": num_experts,
                "top_k": 1,
                **both,
                **order,
            }
        ),
        report=TrainReport(**both, **report),
        deltas=deltas or {},
    )
