"""A gate of the server's own over the experts it merged, learnt on reserved samples.

Clients' gates are private, so the server weights the experts by usage, the same for
every sample. With samples of its own (D^r) it can do better: a linear gate over the
extractor's features, trained on the likelihood of the mixture it forms. Extractor and
experts stand still. The optimiser starts afresh every time, so the gate is the state.
"""

import numpy as np
import torch

from common.moe.ensemble import ServerGated
from common.moe.layer import over_places
from common.optimizers import AdamW
from common.settings.training_settings import TrainingSettings
from common.steps import Steps
from server_app.strategies.server_training import Tensors, batches

BATCH, RATE = 32, 0.01


def train_gate(
    mixture: ServerGated,
    data: Tensors,
    *,
    training: TrainingSettings,
    epochs: int,
    rng: np.random.Generator,
) -> None:
    """Train a mixture's gate in place, where the samples are, which is where it stays.

    Adam on the mean of -log sum_e g_e p_e(y|x).

    Parameters
    ----------
    mixture : ServerGated
        Its experts are not changed.
    data : tuple of Tensor
        Inputs (n, *input_shape) and labels (n,) of the reserved samples.
    training : TrainingSettings
        Of them only ``clip-grad``: the optimiser is the gate's own.
    epochs : int
    rng : Generator
        Orders the samples.
    """
    x, y = data
    mixture.to(y.device)
    with torch.no_grad():
        seen = mixture.model.eval().seen(x)
        # What each expert gives to the true class: all the loss needs of it.
        true_HB = mixture.members(seen).gather(
            2, y.expand(len(mixture.weights), -1)[:, :, None]
        )[:, :, 0]
        features_BD = over_places(seen)
    gate = [*mixture.gate.parameters()]
    adam = AdamW(gate, lr=RATE, beta=0.9, weight_decay=0)  # without decay it is Adam
    steps = Steps(gate, training, adam)
    for batch in batches(len(y), BATCH, epochs, rng, mixture.gate):
        given_B = (mixture.shares(features_BD[batch]) * true_HB[:, batch]).sum(0)
        steps.take(-given_B.clamp_min(torch.finfo(given_B.dtype).tiny).log().mean())
