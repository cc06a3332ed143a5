"""Flower's own strategies (``flwr:FedAdam``, ``flwr:Krum`` ...) on the dense model.

A Flower strategy is two functions around an exchange: ``configure_train`` says what to
send to whom, ``aggregate_train`` makes new weights out of the replies. Here they are
the plan and the merger of our rounds: every round::

    messages <- inner.configure_train(model, participants)          (plan)
    the same ClientApp trains the dense model, the same checks judge its reply
    replies  <- the weights each client ended with                  (merge)
    model    <- inner.aggregate_train(replies in row order)         (finish)

So sampling, deadlines, refused replies, bytes, run log, checkpoints and the order of
summation are those of every other strategy. What a Flower strategy decides about them
(``fraction_train``, ``min_train_nodes``, ...) is set by our settings and refused as an
option; our ``merging`` and ``expert-weighting`` do not apply. Of the config it sends,
clients obey ``proximal-mu`` alone.

All replies of a round are kept until its end, because that is what Flower's interface
asks for.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, cast

import flwr.serverapp.strategy as flower
import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from pydantic import Field, create_model

from common import wire
from common.errors import SettingsError, nearest
from common.local_method import LocalMethod
from common.moe import ModelSpec, Vector
from common.settings import Settings
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)

PREFIX = "flwr:"

DECIDED_HERE = {
    "fraction_train": "clients-per-round",
    "fraction_evaluate": "eval-every",
    "min_train_nodes": "min-replies",
    "min_evaluate_nodes": "min-replies",
    "min_available_nodes": "min-replies",
    "client_learning_rate": "lr",
}
"""Parameters of Flower's strategies, and the setting that decides instead."""

KEYS = {"weighted_by_key", "arrayrecord_key", "configrecord_key", "train_loss_key"}
"""Parameters that name record keys: the wire names those."""


class FlowerStrategy(ExpertStrategy):
    """Base of the adapters, one per Flower strategy.

    Attributes
    ----------
    inner_class : type of Strategy
        The strategy that is adapted.
    inner : Strategy
        Built from ``strategy-options``, by its own parameter names.
    """

    ships = "extractor, one expert: the dense model"
    private = "data only"
    adds_up = False
    dense = True
    by_part = False
    gate = "none"
    inner_class: ClassVar[type[Strategy]]

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options; raises SettingsError, also if the strategy does."""
        for name in settings.run.parsed_strategy_options():
            if instead := DECIDED_HERE.get(name.replace("-", "_")):
                raise SettingsError(
                    f"strategy-options of {cls.name}: {name} is not allowed: "
                    f"set {instead} instead"
                )
        options = super().parse_options(settings)
        cls.build_inner(settings, options)
        return options

    @classmethod
    def build_inner(cls, settings: Settings, options: StrategyOptions) -> Strategy:
        """Construct Flower's strategy; raises SettingsError if it refuses a value."""
        given = options.model_dump(exclude_unset=True)
        parameters = inspect.signature(cls.inner_class).parameters
        if "client_learning_rate" in parameters:
            given["client_learning_rate"] = settings.training.lr
        if "train_loss_key" in parameters:
            given["train_loss_key"] = wire.TRAIN_LOSS
        try:
            inner = cls.inner_class(**given)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"strategy-options of {cls.name}: {error}") from None
        # Flower waits for ever for nodes that we did not invite.
        for name in ("min_train_nodes", "min_available_nodes"):
            if hasattr(inner, name):
                setattr(inner, name, 1)
        return inner

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.inner = self.build_inner(settings, self.options)
        mu = getattr(self.inner, "proximal_mu", 0.0)
        self.method = LocalMethod(proximal=mu)
        self._round = 0
        self._sent: dict[int, Message] = {}
        self._replies: dict[int, Message] = {}

    def plan(self, view: View) -> Plan:
        """Let the strategy address the participants; whom it omits holds nothing."""
        self._round, rows = view.server_round, view.clients.tolist()
        arrays = self.arrays()
        self._sent = {}
        if not rows:  # Flower would wait for ever for somebody to come
            return Plan(assignment=np.zeros_like(view.previous))
        with seeded(int(view.rng.integers(2**63))):
            messages = self.inner.configure_train(
                view.server_round,
                arrays,
                ConfigRecord(),
                cast(Grid, Participants(rows)),
            )
            self._sent = {Participants.row(message): message for message in messages}
        content: dict[int, Mapping[str, Vector]] = {}
        orders: dict[int, Mapping[str, Any]] = {}
        for row, message in self._sent.items():
            if not any(r is arrays for r in message.content.array_records.values()):
                content[row] = wire.decode_flower_arrays(message.content)
            orders[row] = {"proximal": wire.flower_config(message.content)[1]}
        return Plan(
            assignment=np.zeros_like(view.previous)
            | np.isin(view.clients, list(self._sent))[:, None],
            content=content,
            client_order=orders,
        )

    def merge(self, reply: Reply) -> None:
        """Keep the reply in the form Flower's strategies expect: weights, metrics."""
        message = self._sent[reply.client]
        sent = wire.decode_flower_arrays(message.content)
        weights = {part: sent[part] + delta for part, delta in reply.deltas.items()}
        content = wire.encode_flower_reply(
            weights,
            {
                wire.NUM_EXAMPLES: reply.report.num_examples,
                wire.TRAIN_LOSS: reply.report.train_loss,
            },
        )
        self._replies[reply.client] = Message(content, reply_to=message)

    def finish(self) -> None:
        """Let the strategy make the next model; None from it leaves the model alone."""
        replies = [self._replies[row] for row in sorted(self._replies)]
        if not replies:
            return
        arrays, _ = self.inner.aggregate_train(self._round, replies)
        if arrays is not None:
            # Some of them return float64.
            self.model |= {
                part: arrays[part].numpy().astype(np.float32) for part in self.model
            }
        self.discard()

    def discard(self) -> None:
        """Drop the replies of the round."""
        super().discard()
        self._replies = {}

    def state(self) -> dict[str, Any]:
        """Return what the base remembers, and the moments the strategy holds."""
        return {**super().state(), "inner": dict(arrays_of(self.inner))}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        super().load_state(state)
        for name, value in state["inner"].items():
            setattr(self.inner, name, value)


def flower_names() -> list[str]:
    """Return the names of Flower's strategies that can merge a dense model.

    Left out: mergers of trees, and wrappers around another strategy.
    """
    return [
        name
        for name in flower.__all__
        if issubclass(getattr(flower, name), flower.FedAvg)
        and not name.startswith("FedXgb")
    ]


def flower_strategy(name: str) -> type[FlowerStrategy]:
    """Return the adapter of one of Flower's own strategies, by its class name.

    Raises
    ------
    SettingsError
        If there is none; the message gives the nearest name.
    """
    known = flower_names()
    if name not in known:
        raise SettingsError(
            f"strategy = {PREFIX + name!r} is not allowed: choose {PREFIX} and one of "
            f"{', '.join(known)}{nearest(name, known)}"
        )
    return adapted(getattr(flower, name), PREFIX + name)


@cache
def adapted(inner_class: type[Strategy], name: str) -> type[FlowerStrategy]:
    """Return an adapter of a strategy class, Flower's or a user's.

    Raises
    ------
    SettingsError
        If it cannot be built from numbers and texts alone.
    """
    package = inner_class.__module__.partition(".")[0]
    members = {
        "name": name,
        "source": f"{inner_class.__name__} of the package {package}",
        "use_when": "",
        "cost": "as fedavg",
        "inner_class": inner_class,
        "Options": options_of(inner_class, name),
    }
    return cast(
        type[FlowerStrategy], type(inner_class.__name__, (FlowerStrategy,), members)
    )


def options_of(inner_class: type[Strategy], name: str) -> type[StrategyOptions]:
    """Return the options a strategy's constructor takes: its numbers and texts."""
    fields: dict[str, Any] = {}
    for key, parameter in inspect.signature(
        inner_class, eval_str=True
    ).parameters.items():
        required = parameter.default is parameter.empty
        if key in KEYS or key in DECIDED_HERE:
            continue
        if parameter.annotation in (bool, int, float, str):
            default = ... if required else parameter.default
            fields[key] = (parameter.annotation, Field(default))
        elif required and parameter.kind is not parameter.VAR_KEYWORD:
            raise SettingsError(
                f"strategy = {name!r} cannot run here: its parameter {key!r} is "
                "neither a number nor a text"
            )
    return create_model("Options", __base__=StrategyOptions, **fields)


@dataclass(frozen=True)
class Participants:
    """The grid a strategy sees while it plans: this round's participants, no others.

    Node ids are rows plus one, since Flower gives id 0 a meaning of its own.
    """

    rows: list[int]

    def get_node_ids(self) -> list[int]:
        """Return one id per participant."""
        return [row + 1 for row in self.rows]

    @staticmethod
    def row(message: Message) -> int:
        """Return the row of the client a message is for."""
        return message.metadata.dst_node_id - 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make Flower's sampling repeatable: it draws from Python's global generator."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def arrays_of(inner: Strategy) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that hold arrays: moments, momentum and the like.

    ``current_arrays`` is left out: every round starts by setting it to the model.
    """
    for name, value in vars(inner).items():
        items = value.values() if isinstance(value, dict) else value
        if name == "current_arrays" or not isinstance(value, dict | list | np.ndarray):
            continue
        if isinstance(value, np.ndarray) or (
            items and all(isinstance(item, np.ndarray) for item in items)
        ):
            yield name, value
