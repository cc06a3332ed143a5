"""Answers to Flower's own strategies, which send no order."""

from collections.abc import Iterable, Mapping

from flwr.app import Message

from client_app.local_round import accuracies, train_locally, training_stream
from client_app.session import Session
from client_app.training import Objective
from common import wire
from common.moe import EXTRACTOR, Vector, expert_part


def answer_flower(message: Message, session: Session, *, may_train: bool) -> Message:
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
        rng = training_stream(session, server_round)
        result = train_locally(model, session, objective, rng)
        metrics[wire.TRAIN_LOSS] = result.train_loss
    measured = accuracies(model, session)
    measured.pop("local_counts", None)  # Flower's strategies take means of numbers
    metrics |= {name.replace("_", "-"): value for name, value in measured.items()}
    weights = model.vectors(parts) if may_train else {}
    return Message(wire.encode_flower_reply(weights, metrics), reply_to=message)


def _only(vectors: Mapping[str, Vector], names: Iterable[str]) -> dict[str, Vector]:
    missing = [name for name in names if name not in vectors]
    if missing:
        raise wire.WireError(f"the message carries no {', '.join(missing)}")
    return {name: vectors[name] for name in names}
