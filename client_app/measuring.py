"""Measures the server's predictor on what this client holds out.

Nothing of training is touched: no gate, no cached part, no error feedback, no random
stream.
"""

import time

from flwr.app import Message

from client_app.base_answers import need_base
from client_app.session import Session
from client_app.transfer import PartsLackedError, Transfer
from common import wire
from common.code_hash import code_hash
from common.cost import evaluation_batch
from common.moe.counting import count_answers
from common.moe.described import predictor_of
from common.shape import ordered_spec
from common.wire import MeasureOrder


def measure(message: Message, session: Session, order: MeasureOrder) -> Message:
    """Return how often the predictor was right, class by class.

    Raises
    ------
    WireError
        If the message is not what the order says.
    """
    started = time.perf_counter()
    session.server_round = order.server_round
    spec = ordered_spec(session.spec, order)
    store = session.home.store(order.run)
    try:
        need_base(session, spec)
        vectors = Transfer(order, spec, store, cached=False).receive(message.content)
    except PartsLackedError as error:
        return error.answer(message, order, session.client)
    session.keep_features(spec)
    model = spec.build(order.experts, session.settings.run.seed)
    model.load(vectors)
    try:
        predictor = predictor_of(
            order.predictor, model, order.weights, order.server_gate
        )
    except ValueError as error:
        raise wire.WireError(str(error)) from None
    counts = count_answers(
        predictor.to(session.device).eval(),
        *session.held_out_tensors(),
        num_classes=spec.num_classes,
        batch=evaluation_batch(spec),
    )
    if session.settings.data.private_counts:
        counts = counts.without_classes()
    report = wire.MeasureReport(
        server_round=order.server_round,
        client=session.client,
        code_hash=code_hash(session.settings),
        counts=counts.numbers.tolist(),
        seconds_total=time.perf_counter() - started,
    )
    return Message(wire.encode_measure_report(report), reply_to=message)
