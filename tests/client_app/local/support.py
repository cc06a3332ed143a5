"""A client with its own data, an order to it, and training worked out apart."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from client_app.app import app
from client_app.local import BY_NAME, Given, Trained
from client_app.session import Session
from common.inline_grid import InlineGrid
from common.moe import MoEModel, Vector
from common.shape import ordered_spec
from common.wire import TrainOrder

LR = 0.05
# One batch an epoch, plain gradient descent: an epoch is one step.
CONFIG: dict[str, Any] = {
    "seed": 3,
    "train-samples": 60,
    "local-epochs": 1,
    "batch-size": 1000,
    "lr": LR,
    "momentum": 0.0,
    "weight-decay": 0.0,
}
DENSE = ["extractor", "expert.0"]


def session_of(**config: Any) -> Session:
    return Session(InlineGrid(app, 4, {**CONFIG, **config}).contexts[1])


def order_of(**fields: Any) -> TrainOrder:
    given: dict[str, Any] = {
        "run": "r",
        "server_round": 1,
        "experts": [0],
        "num_experts": 1,
        "top_k": 1,
        "gate": "none",
    }
    return TrainOrder(**{**given, **fields})


def given_of(
    session: Session,
    order: TrainOrder,
    kept: Vector | None = None,
    received: dict[str, Vector] | None = None,
) -> Given:
    """What the app makes of a message; parts nobody gave are the initial ones."""
    spec = ordered_spec(session.spec, order)
    if received is None:
        received = spec.initial(session.settings.run.seed, order.shared_parts())
    model = spec.build(order.experts, session.settings.run.seed)
    model.load(received)
    return Given(
        session=session, order=order, model=model, received=received, kept=kept
    )


def run(given: Given) -> Trained:
    """Train as the app does."""
    trained = BY_NAME[given.order.method].train(given)
    if not trained.own:
        given.keep_share()
    return trained


def parts_of(model: MoEModel, names: list[str] = DENSE) -> Vector:
    return np.concatenate([*model.vectors(names).values()])


def kept_by(given: Given) -> Vector:
    """Train, and return what is kept."""
    kept = run(given).kept
    assert kept is not None
    return kept


def sent_by(given: Given) -> Vector:
    """Train, and return what is sent, as one vector."""
    return whole(run(given).changes)


def whole(vectors: dict[str, Vector]) -> Vector:
    return np.concatenate([vectors[name] for name in DENSE])


def initial(session: Session) -> Vector:
    """The dense model that every client begins with."""
    return whole(session.spec.dense().initial(session.settings.run.seed, DENSE))


def gradient(session: Session, weights: Vector) -> Vector:
    """The gradient of the mean cross-entropy over all of the client's samples."""
    spec = session.spec.dense()
    model = spec.build([0])
    start = 0
    for name in DENSE:
        model.load({name: weights[start : start + spec.size(name)]})
        start += spec.size(name)
    model.train()
    x, y = session.train_tensors()
    F.cross_entropy(model(x[torch.arange(len(y))]).logits, y).backward()
    found = [p.grad for name in DENSE for p in model.parts()[name].parameters()]
    return torch.cat([g.flatten() for g in found if g is not None]).numpy()
