"""What one client does in a round: train on its own samples, and measure.

Not here: messages (``client_app.app``), and the steps of training itself
(``client_app.training``).
"""

from typing import Any

import numpy as np
import torch

from client_app.dp_sgd import release_of, train_private
from client_app.labels import classes_present, log_frequencies
from client_app.session import Session
from client_app.statistics import LocalResult
from client_app.training import Beside, Objective, evaluate, train
from common.augment import find_augment
from common.errors import SettingsError
from common.moe import MoEModel
from common.seeding import stream
from common.settings.training_settings import TrainingSettings
from common.wire import TrainOrder


def objective_of(session: Session, order: TrainOrder) -> Objective:
    """Return the local objective that an order asks for."""
    present = None
    if order.masked_loss:
        present = classes_present(session.data).to(session.device)
    # A shared gate explores as its own paper says.
    model = session.settings.model
    return Objective(
        gate_balance=model.gate_balance,
        gate_exploration=model.gate_exploration if order.gate == "private" else 0.0,
        gate_entropy=order.gate_entropy,
        gate_supervision=order.gate_supervision,
        proximal=order.proximal,
        shift=label_shift(session, order.calibration),
        present=present,
    )


def training_stream(session: Session, server_round: int) -> np.random.Generator:
    """Return the random stream of a client's training in one round."""
    return stream(session.settings.run.seed, "train", server_round, session.client)


def train_locally(
    model: MoEModel,
    session: Session,
    objective: Objective,
    rng: np.random.Generator,
    *,
    epochs: int | None = None,
    beside: Beside | None = None,
) -> LocalResult:
    """Train; whatever is kept or sent afterwards is finite.

    Parameters
    ----------
    epochs : int, optional
        ``local-epochs`` if left out.
    beside : callable, optional
        See :func:`client_app.training.train`.

    Raises
    ------
    FloatingPointError
        If training diverged.
    """
    x, y = session.train_tensors()
    settings = session.training
    if epochs is not None:
        settings = settings.model_copy(update={"local_epochs": epochs})
    data = session.data
    if session.privacy.is_device:
        return _train_privately(model, session, objective, settings, beside)
    result = train(
        model,
        x,
        y,
        settings=settings,
        objective=objective,
        rng=rng,
        beside=beside,
        augment=find_augment(settings.augment, data.input_shape, data.normaliser),
    )
    check_finite(model, result.train_loss, session)
    return result


def _train_privately(
    model: MoEModel,
    session: Session,
    objective: Objective,
    settings: TrainingSettings,
    beside: Beside | None,
) -> LocalResult:
    """Train with noise, which is paid for first, on the disk."""
    if beside is not None:
        raise SettingsError(
            'two models at once are not allowed with privacy = "device": choose '
            "another strategy"
        )
    rules, (x, y), data = session.privacy, session.train_tensors(), session.data
    session.spent().charge(*release_of(len(y), settings, rules))
    result = train_private(
        model,
        x,
        y,
        settings=settings,
        objective=objective,
        rules=rules,
        augment=find_augment(settings.augment, data.input_shape, data.normaliser),
        counted=not rules.leaves_out,
    )
    check_finite(model, 0.0, session)  # what it lost says more than may be said
    return result


def check_finite(model: MoEModel, train_loss: float, session: Session) -> None:
    """Raise FloatingPointError if training diverged."""
    learnt = (*model.parameters(), *model.buffers(), torch.tensor(train_loss))
    if not all(bool(values.isfinite().all()) for values in learnt):
        raise FloatingPointError(
            f"training diverged, its loss is {train_loss:g}: try an lr below "
            f"{session.training.lr:g}"
        )


def statistics_of(result: LocalResult | None, order: TrainOrder) -> dict[str, Any]:
    """Return what a report says of each expert; nothing was trained without result."""
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


def label_shift(session: Session, weight: float) -> torch.Tensor | None:
    """Return the weighted log of the client's label frequencies; None for weight 0."""
    if not weight:
        return None
    return log_frequencies(session.data).to(session.device) * weight


def accuracies(
    model: MoEModel, session: Session, label_prior: float = 0.0
) -> dict[str, Any]:
    """Return what a report says of the model's answers.

    On the client's own held-out samples, if there are any, and on the global test set,
    if all have one.
    """
    # The global test set has another label mix: the client's own must not enter there.
    shift = label_shift(session, label_prior)
    found: dict[str, Any] = {}
    if len(session.data.held_out):
        local = evaluate(model, *session.held_out_tensors(), shift)
        if session.settings.data.private_counts:
            local = local.without_classes()
        found["client_local"] = local.accuracy
        found["local_counts"] = local.numbers.tolist()
    if (test := session.test_tensors()) is not None:
        found["client_global"] = evaluate(model, *test).accuracy
    return found
