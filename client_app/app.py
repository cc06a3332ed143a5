"""The ClientApp: ``train``, ``evaluate`` and ``query``.

It reads an order, builds exactly the experts the order names, trains them with the
client's own gate and answers with deltas and per-expert statistics. A message from one
of Flower's own strategies carries no order; it gets the dense model, full weights and
the metrics those strategies expect.

Ray runs several virtual clients in one process, so nothing of a client is kept in
module globals; the caches below hold only the public data set.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from flwr.app import Array, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app import profiler
from client_app.allocator import keep_freed_memory
from client_app.gates import Gates
from client_app.session import Session
from client_app.snapshot import save_snapshot
from client_app.speed import training_speed
from client_app.statistics import LocalResult
from client_app.store import open_store
from client_app.training import Objective, accuracy, train
from client_app.transfer import PartsLackedError, Transfer
from common import wire
from common.code_hash import code_hash
from common.inputs import Inputs
from common.moe import EXTRACTOR, GATE, MoEModel, Vector, expert_part
from common.seeding import stream
from common.shape import checkpoint_hash, ordered_spec

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Say who this client is and what it can hold."""
    started = time.perf_counter()
    session = Session(context)
    _set_up_process(session)
    reply = wire.QueryReply(
        client=session.client,
        partition_id=session.partition_id,
        num_partitions=session.num_partitions,
        num_examples=session.num_examples,
        code_hash=code_hash(),
        partition_hash=session.partition_hash,
        checkpoint=checkpoint_hash(session.settings),
        expert_cap=session.reported_capacity,
        **(_profile(session) if session.owns_machine else {}),
        seconds_total=time.perf_counter() - started,
    )
    return Message(wire.encode_query_reply(reply), reply_to=message)


@app.query("ping")
def ping(message: Message, context: Context) -> Message:
    """Say nothing, but in its turn: what came before has been answered by then."""
    return Message(RecordDict(), reply_to=message)


@app.train()
def train_round(message: Message, context: Context) -> Message:
    """Train what the order names and answer with what changed."""
    return _answer(message, context, may_train=True)


@app.evaluate()
def evaluate_round(message: Message, context: Context) -> Message:
    """Evaluate what the order names, without training it."""
    return _answer(message, context, may_train=False)


def _set_up_process(session: Session) -> None:
    torch.set_num_threads(session.settings.training.threads)
    keep_freed_memory()


def _answer(message: Message, context: Context, *, may_train: bool) -> Message:
    session = Session(context)
    _set_up_process(session)
    if not wire.is_order(message.content):
        return _answer_flower(message, session, may_train=may_train)
    started = time.perf_counter()
    order = wire.decode_order(message.content)
    session.server_round = order.server_round
    if order.train and may_train:
        session.suffer(order)
    spec = ordered_spec(session.spec, order)
    store = open_store(context, session.state_dir, order.run, session.client)
    cached = session.settings.wire.expert_cache
    transfer = Transfer(order, spec, store, cached=cached)
    try:
        vectors = transfer.receive(message.content)
    except PartsLackedError as error:
        lacks = wire.Lacks(
            server_round=order.server_round, client=session.client, parts=error.parts
        )
        return Message(wire.encode_lacks(lacks), reply_to=message)
    model = spec.build(order.experts, session.settings.run.seed)
    model.load(vectors)
    gates = Gates(store, context.run_id) if order.gate == "private" else None
    if gates is not None and (gate := gates.load(order.server_round)) is not None:
        model.load({GATE: gate})
    model.to(session.device)

    result, seconds = None, 0.0
    deltas: dict[str, Array] = {}
    if order.train and may_train:
        result = _train(model, session, order.server_round, _objective(session, order))
        seconds = time.perf_counter() - started
        if gates is not None:
            gates.save(order.server_round, model.vectors([GATE])[GATE])
        deltas = transfer.send(
            _changes(model, vectors, order),
            stream(
                session.settings.run.seed, "upload", order.server_round, session.client
            ),
        )
        if session.state_dir:
            save_snapshot(
                store,
                session.client,
                run=order.run,
                server_round=order.server_round,
                model=model,
                inputs=Inputs.of(session.dataset),
            )
    report = wire.TrainReport(
        server_round=order.server_round,
        client=session.client,
        code_hash=code_hash(),
        num_examples=session.num_examples,
        **_statistics(result, order),
        **(_accuracies(model, session, order.label_prior) if order.evaluate else {}),
        seconds_train=seconds,
        seconds_total=time.perf_counter() - started,
        expert_cap=session.reported_capacity,
        holds=transfer.holds(),
        **(_memory_now(session) if session.owns_machine else {}),
    )
    return Message(wire.encode_report(report, deltas), reply_to=message)


def _objective(session: Session, order: wire.TrainOrder) -> Objective:
    return Objective(
        gate_balance=session.settings.model.gate_balance,
        gate_entropy=order.gate_entropy,
        gate_supervision=order.gate_supervision,
        proximal=order.proximal,
        shift=_label_shift(session, order.calibration),
    )


def _changes(
    model: MoEModel, received: Mapping[str, Vector], order: wire.TrainOrder
) -> dict[str, Vector]:
    """Return what training changed; the model keeps the share of it that it may."""
    changes = model.vectors(order.returned_parts())
    for name, vector in changes.items():
        vector -= received[name]
    if order.keep_share < 1:  # else its bits stay as they are
        share = np.float32(order.keep_share)
        model.load({name: received[name] + share * changes[name] for name in changes})
    return changes


def _profile(session: Session) -> dict[str, Any]:
    """Return what this device is; after the data set is loaded, as in training."""
    found = profiler.profile(session.state_dir, session.memory_cap)
    known = {name: v for name, v in asdict(found).items() if v not in (None, "")}
    batch = session.settings.training.batch_size
    speed = float(session.node.get("flops-per-second", 0))
    return {
        **known,
        "flops_per_second": speed
        or training_speed(session.spec, batch, session.state_dir),
        "uplink": float(session.node.get("uplink-bytes-per-second", 0)),
    }


def _memory_now(session: Session) -> dict[str, Any]:
    found = profiler.memory(session.memory_cap)
    del found["process_bytes"]  # of a process at rest, which this one is not
    return {**found, "memory_peak": profiler.peak_bytes()}


def _train(
    model: MoEModel, session: Session, server_round: int, objective: Objective
) -> LocalResult:
    x, y = session.train_tensors()
    seed = session.settings.run.seed
    return train(
        model,
        x,
        y,
        settings=session.settings.training,
        objective=objective,
        rng=stream(seed, "train", server_round, session.client),
    )


def _statistics(result: LocalResult | None, order: wire.TrainOrder) -> dict[str, Any]:
    if result is None:
        nothing = [0.0] * len(order.experts)
        return {
            "expert_samples": [0] * len(order.experts),
            "expert_accuracy": nothing,
            "expert_loss": nothing,
        }
    statistics: dict[str, Any] = {
        "expert_samples": result.samples.tolist(),
        "expert_accuracy": result.accuracy.tolist(),
        "expert_loss": result.loss.tolist(),
        "train_loss": result.train_loss,
    }
    if order.report_gate:
        # Float sums may leave [0, 1] by a rounding error.
        statistics["gate_mass"] = np.clip(result.gate_mass, 0, 1).tolist()
        statistics["responsibility"] = np.clip(result.responsibility, 0, 1).tolist()
    if order.report_information:
        for name in ("input_information", "label_information"):
            statistics[name] = np.maximum(getattr(result, name), 0).tolist()
    return statistics


def _label_shift(session: Session, weight: float) -> torch.Tensor | None:
    return session.log_label_frequencies() * weight if weight else None


def _accuracies(
    model: MoEModel, session: Session, label_prior: float = 0.0
) -> dict[str, Any]:
    # The global test set has another label mix: the client's own must not enter there.
    shift = _label_shift(session, label_prior)
    return {
        "client_local": accuracy(model, *session.held_out_tensors(), shift),
        "client_global": accuracy(model, *session.test_tensors()),
    }


def _answer_flower(message: Message, session: Session, *, may_train: bool) -> Message:
    """Serve Flower's own strategies: the dense model, full weights both ways."""
    received = wire.decode_flower_arrays(message.content)
    spec = session.spec.dense()
    model = spec.build(spec.one_of_each, session.settings.run.seed)
    parts = [EXTRACTOR, *map(expert_part, spec.one_of_each)]
    model.load(_only(received, parts))
    model.to(session.device)
    server_round, proximal = wire.flower_config(message.content)
    session.server_round = server_round
    metrics: dict[str, int | float] = {wire.NUM_EXAMPLES: session.num_examples}
    if may_train:
        objective = Objective(proximal=proximal)
        result = _train(model, session, server_round, objective)
        metrics[wire.TRAIN_LOSS] = result.train_loss
    metrics |= {k.replace("_", "-"): v for k, v in _accuracies(model, session).items()}
    weights = model.vectors(parts) if may_train else {}
    return Message(wire.encode_flower_reply(weights, metrics), reply_to=message)


def _only(vectors: Mapping[str, Vector], names: Iterable[str]) -> dict[str, Vector]:
    missing = [name for name in names if name not in vectors]
    if missing:
        raise wire.WireError(f"the message carries no {', '.join(missing)}")
    return {name: vectors[name] for name in names}
