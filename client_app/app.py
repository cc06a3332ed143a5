"""The ClientApp: ``train``, ``evaluate`` and ``query``.

It reads an order, builds exactly the experts the order names, trains them with the
client's own gate and answers with deltas and per-expert statistics. A message from one
of Flower's own strategies carries no order; it gets the dense model, full weights and
the metrics those strategies expect.

Ray runs several virtual clients in one process, so nothing of a client is kept in
module globals; the caches below hold only the public data set.
"""

import time
from dataclasses import asdict
from typing import Any

import torch
from flwr.app import Array, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app.base_answers import base_fields, keep_piece, need_base
from client_app.candidates import best_candidate
from client_app.class_statistic import class_statistic
from client_app.data_description import described
from client_app.device import profiler
from client_app.device.allocator import keep_freed_memory
from client_app.device.speed import training_speed
from client_app.flower_answer import answer_flower
from client_app.kept.private import MODEL, Private, rounds_kept
from client_app.kept.snapshot import save_snapshot
from client_app.local import BY_NAME, Given
from client_app.local_round import accuracies, objective_of, statistics_of
from client_app.measuring import measure
from client_app.own_metrics import own_metrics
from client_app.private_run import check_private
from client_app.refusing import refusing
from client_app.session import Session
from client_app.stress import apply_stress, reported_capacity
from client_app.transfer import PartsLackedError, Transfer
from client_app.warming import tell
from common import wire
from common.chunks import cut_for
from common.code_hash import code_hash
from common.left_out import (
    check_enough,
    evenly_used,
    without_data,
    without_samples,
)
from common.moe import GATE
from common.registry import CLIENT_METRICS
from common.seeding import stream
from common.shape import checkpoint_hash, ordered_spec
from common.task import task_from_json

app = ClientApp()


@app.query()
@refusing
def query(message: Message, context: Context) -> Message:
    """Say who this client is and what it can hold."""
    started = time.perf_counter()
    asked = wire.decode_query(message.content)
    session = (
        Session(context, task_from_json(asked.task), asked.data_hash)
        if asked
        else Session(context)
    )
    _set_up_process(context, session)
    check_private(session)
    code = code_hash(session.settings)  # first: it names a part that is not here
    if name := session.settings.run.client_metrics:
        CLIENT_METRICS.find(name)  # a device that lacks it takes no part
    data, machine = described(session), _profile(session)
    # Last: what weights take is not what the process has at rest.
    base, warnings = base_fields(session, asked.base if asked else None)
    data["warnings"] = [*warnings, *data.get("warnings", [])][:8]
    reply = wire.QueryReply(
        client=session.client,
        num_examples=session.num_examples,
        code_hash=code,
        partition_hash=session.partition_hash,
        task_hash=session.task.digest,
        **data,
        **_statistic(session, asked),
        checkpoint=checkpoint_hash(session.settings),
        **base,
        expert_cap=reported_capacity(session),
        **machine,
        seconds_total=time.perf_counter() - started,
    )
    if session.privacy.leaves_out:
        least = session.task.min_samples
        check_enough(reply.rows, reply.num_examples, least)
        # Epsilon of samples is of a number of them that everybody knows.
        samples = reply.num_examples if session.privacy.is_device else least
        reply = without_data(reply, samples)
    return Message(wire.encode_query_reply(reply), reply_to=message)


@app.query("base")
def take_base(message: Message, context: Context) -> Message:
    """Keep a piece of the frozen base, and say how much of it is here."""
    kept = keep_piece(Session(context), *wire.decode_piece(message.content))
    return Message(wire.encode_kept(kept), reply_to=message)


@app.query("ping")
def ping(message: Message, _: Context) -> Message:
    """Say nothing, but in its turn: what came before has been answered by then."""
    return Message(RecordDict(), reply_to=message)


@app.train()
def train_round(message: Message, context: Context) -> Message:
    """Train what the order names and answer with what changed."""
    return _answer(message, context, may_train=True)


@app.evaluate()
def evaluate_round(message: Message, context: Context) -> Message:
    """Evaluate what the order names without training it, or the server's predictor."""
    order = wire.decode_measure_order(message.content)
    if order is not None:
        session = Session(context, task_from_json(order.task) if order.task else None)
        _set_up_process(context, session)
        check_private(session, order)
        return measure(message, session, order)
    return _answer(message, context, may_train=False)


def _set_up_process(context: Context, session: Session) -> None:
    _ = session.device  # refused here if there is none
    tell(context, session)
    torch.set_num_threads(session.settings.training.threads)
    keep_freed_memory()
    if uplink := session.node.uplink_bytes_per_second:
        cut_for(uplink)


def _answer(message: Message, context: Context, *, may_train: bool) -> Message:
    if not wire.is_order(message.content):
        session = Session(context)
        _set_up_process(context, session)
        check_private(session, stock=True)
        return answer_flower(message, session, may_train=may_train)
    started = time.perf_counter()
    order = wire.decode_order(message.content)
    session = Session(context, task_from_json(order.task) if order.task else None)
    _set_up_process(context, session)
    session.server_round = order.server_round
    check_private(session, order)
    if order.train and may_train:
        apply_stress(session, order)
    spec = ordered_spec(session.spec, order)
    store = session.home.store(order.run)
    kept = rounds_kept(store, session.settings.run.keep_checkpoints)
    cached = session.settings.wire.expert_cache
    privacy = session.privacy
    transfer = Transfer(
        order,
        spec,
        store,
        cached=cached,
        kept=kept,
        clip=privacy.privacy_clip if privacy.is_central else None,
    )
    try:
        need_base(session, spec)
        vectors = transfer.receive(message.content)
    except PartsLackedError as error:
        return error.answer(message, order, session.client)
    session.keep_features(spec)
    model = spec.build(order.experts, session.settings.run.seed)
    candidate = 0
    if order.candidates > 1:
        candidate, vectors = best_candidate(
            model.to(session.device),
            vectors,
            session.train_tensors(),
            count=order.candidates,
            shift=objective_of(session, order).shift,
        )
    model.load(vectors)
    method = BY_NAME[order.method]
    sizes = {MODEL: method.size(spec, order)}
    sizes[GATE] = spec.size(GATE) if order.gate == "private" else 0
    sizes = {name: size for name, size in sizes.items() if size}
    private = Private(store, context.run_id, sizes=sizes, kept=kept)
    before = private.load(order.server_round, order.merged_round)
    if GATE in before:
        model.load({GATE: before[GATE]})
    model.to(session.device)
    given = Given(
        session=session,
        order=order,
        model=model,
        received=vectors,
        kept=before.get(MODEL),
    )

    result, seconds = None, 0.0
    deltas: dict[str, Array] = {}
    if order.train and may_train:
        trained = method.train(given)
        result, seconds = trained.result, time.perf_counter() - started
        kept_now = {} if trained.kept is None else {MODEL: trained.kept}
        if order.gate == "private":
            kept_now |= model.vectors([GATE])
        private.save(order.server_round, kept_now)
        if not trained.own:
            given.keep_share()
        deltas = transfer.send(
            trained.changes,
            stream(
                session.settings.run.seed, "upload", order.server_round, session.client
            ),
        )
        if session.home.state_dir:
            save_snapshot(
                store,
                session.client,
                run=order.run,
                server_round=order.server_round,
                model=model,
                task=session.task,
                pretrained=session.settings.model.pretrained,
            )
    else:
        method.recall(given)
    measures = order.evaluate and not privacy.leaves_out
    measured = accuracies(model, session, order.label_prior) if measures else {}
    metrics, warnings = own_metrics(model, session) if result else ({}, [])
    report = wire.TrainReport(
        server_round=order.server_round,
        client=session.client,
        code_hash=code_hash(session.settings),
        num_examples=session.num_examples,
        candidate=candidate,
        **statistics_of(result, order),
        **measured,
        seconds_train=seconds,
        seconds_total=time.perf_counter() - started,
        expert_cap=reported_capacity(session),
        holds=transfer.holds(),
        warnings=[*store.warnings, *warnings],
        metrics=metrics,
        **(_memory_now(session) if session.owns_machine else {}),
    )
    if privacy.leaves_out:
        report = without_samples(report)
    if privacy.leaves_out and privacy.is_device:
        report = evenly_used(report, session.num_examples, spec.num_classes)
    return Message(wire.encode_report(report, deltas), reply_to=message)


def _statistic(session: Session, asked: wire.Query | None) -> dict[str, Any]:
    """Return what the server asks of the samples beside; nothing if it does not.

    Nothing either where the scale is still to be worked out: then it asks again.
    """
    if asked is None or asked.statistic_seed is None or session.task.needs_moments:
        return {}
    data = session.settings.data
    return class_statistic(
        *session.train_tensors(),
        session.task.num_classes,
        seed=asked.statistic_seed,
        projections=asked.projections,
        units=session.data.units,
        noise=data.statistic_noise,
        private=data.private_counts,
    ).model_dump(exclude={"protocol"})


def _profile(session: Session) -> dict[str, Any]:
    """Return what this device is; after the data set is loaded, as in training.

    Nothing of a virtual client, which has no machine of its own.
    """
    if not session.owns_machine:
        return {}
    found = profiler.profile(session.home.state_dir, session.memory_cap)
    known = {name: v for name, v in asdict(found).items() if v is not None}
    batch = session.settings.training.batch_size
    speed = session.node.flops_per_second
    return {
        **known,
        "flops_per_second": speed
        or training_speed(session.spec, batch, session.home.state_dir),
        "uplink": session.node.uplink_bytes_per_second,
        "downlink": session.node.downlink_bytes_per_second,
    }


def _memory_now(session: Session) -> dict[str, Any]:
    found = profiler.memory(session.memory_cap)
    del found["process_bytes"]  # of a process at rest, which this one is not
    return {**found, "memory_peak": profiler.peak_bytes()}
