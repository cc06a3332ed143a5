"""Training of which every sample may say only so much (``privacy = "device"``).

DP-SGD (Abadi et al., CCS 2016, Algorithm 1). In every step each sample takes part by a
chance q of its own. The gradient of its loss with all that is trained (extractor,
experts held, gate) is one vector, shortened to a norm of at most C. Their sum gets
noise N(0, (z C)^2 I), is divided by the samples expected, q n, and goes to the
optimizer, which sees nothing else of the samples::

    g = (sum_i clip(grad l_i, C) + N(0, (z C)^2 I)) / (q n)

**The gate is in it.** It stays on the device, and still it must not be trained without
noise: the next gradients of the experts depend on it, and it depends on all samples, so
one sample would move the clipped gradients of all others, by up to 2 C each. In the
joint vector it costs no epsilon of its own.

**An expert no sample went to** has the gradient 0 and gets noise as all others do: that
it was left alone would say that nobody went there.

Each sample goes through the model alone, as a batch of one. So its gradient is of
nothing but itself, whatever the model is made of, and memory for one more gradient is
enough. ``opacus`` needs the same rows in every layer, which experts that get only the
samples routed to them do not have (a test compares where they do).

Everything random here is drawn from the operating system and is not repeatable: who
knew the draws could take the noise off again.

Not here: what it costs (``client_app.kept.budget``), and what a device leaves out of
its answers (``common.left_out``).
"""

import math
import os
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm

from client_app.model_inputs import ModelInputs
from client_app.statistics import LocalResult, Tally
from client_app.training import Change, Objective
from common.accountant import Release
from common.errors import SettingsError
from common.gaussian_mechanism import RandomBytes, clipped_units, noise_units
from common.grid import GRID
from common.moe import Exploration, MoEModel
from common.settings.privacy_settings import PrivacySettings
from common.settings.training_settings import TrainingSettings
from common.steps import Steps, precision_on


def sampling_rate(samples: int, settings: TrainingSettings) -> float:
    """Return q, the chance of each sample to take part in a step."""
    return min(1.0, settings.batch_size / samples)


def steps_of(samples: int, settings: TrainingSettings) -> int:
    """Return the steps of a round: as many as there are batches in its epochs."""
    return settings.local_epochs * math.ceil(samples / settings.batch_size)


def release_of(
    samples: int, settings: TrainingSettings, rules: PrivacySettings
) -> tuple[Release, int]:
    """Return what a training releases: one step, and how many of them there are."""
    rate = sampling_rate(samples, settings)
    return Release(rules.noise_multiplier, rate), steps_of(samples, settings)


def train_private(
    model: MoEModel,
    x: torch.Tensor | ModelInputs,
    y: torch.Tensor,
    *,
    settings: TrainingSettings,
    objective: Objective,
    rules: PrivacySettings,
    augment: Change | None = None,
    counted: bool = False,
    random_bytes: RandomBytes = os.urandom,
) -> LocalResult:
    """Train ``model`` in place for as many steps as ``local_epochs`` epochs have.

    Parameters
    ----------
    x : Tensor of float, shape (n, *input_shape), or ModelInputs
    y : Tensor of int, shape (n,)
    rules : PrivacySettings
        With C and z.
    augment : callable, optional
        See :class:`common.augment.Augment`.
    counted : bool
        Whether to count what the last epoch's passes say of each expert. Nothing is
        added to that: it must not leave the device.
    random_bytes : callable
        Where all chance comes from; anything but the operating system's is for tests.

    Returns
    -------
    LocalResult
        Zeros unless ``counted``.

    Raises
    ------
    SettingsError
        If one sample could say more than C of the model or the objective.
    """
    model.train()
    check_separable(model, objective, settings)
    parameters = [p for p in model.parameters() if p.requires_grad]
    mu, anchor = objective.proximal, objective.anchor or []
    if mu and not anchor:
        anchor = [p.detach().clone() for p in parameters]
    objective = replace(objective, proximal=0.0)  # of no sample: added after the noise
    steps, rate = Steps(parameters, settings), sampling_rate(len(y), settings)
    choosing = [f for f in model.layers if f.top_k < len(f.held_ids)]
    for layer in choosing if objective.gate_exploration else []:
        layer.exploration = Exploration(
            share=objective.gate_exploration, generator=_generator(random_bytes)
        )
    changes = np.random.default_rng(_seed(random_bytes))
    tally, total = Tally(model), steps_of(len(y), settings)
    buffers = [buffer.clone() for buffer in model.buffers()]
    # Dropout draws from torch's own stream, which begins alike in every process.
    with torch.random.fork_rng():
        torch.manual_seed(_seed(random_bytes) >> 65)
        for step in range(total):
            last = step >= total - total // settings.local_epochs
            sums = ClippedSum(parameters, rules.privacy_clip)
            chosen = torch.from_numpy(drawn(len(y), rate, random_bytes)).to(x.device)
            for row in chosen.split(1) if len(chosen) else ():
                inputs, label = x[row], y[row]
                if augment is not None:
                    inputs = augment(inputs, changes)
                routed = steps.forward(model, inputs)
                loss = objective.loss(
                    routed, label, model, [], settings.label_smoothing
                )
                steps.backward(loss)
                sums.add_gradients()
                if counted and last:
                    tally.add(routed, label)
            sums.put_mean(rules.noise_multiplier, rate * len(y), random_bytes)
            with torch.no_grad():
                for p, start in zip(parameters, anchor, strict=True) if mu else ():
                    assert p.grad is not None
                    p.grad.add_(p - start, alpha=mu)
            steps.step()
    if not all(map(torch.equal, buffers, model.buffers())):
        raise SettingsError(
            "the model keeps something of its inputs beside its weights, which is not "
            'allowed with privacy = "device"'
        )
    steps.clear()
    return tally.result()


class ClippedSum:
    """The sum of samples' gradients, of each sample's no more than C.

    Parameters
    ----------
    parameters : list of Parameter
    clip : float
        C.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], clip: float) -> None:
        self._parameters, self._clip = parameters, clip
        self._sums = [np.zeros(tuple(p.shape)) for p in parameters]

    def add_gradients(self) -> None:
        """Take in the gradients at hand, of one sample.

        Those that are not finite count as zeros: one sample of that kind must not
        show.
        """
        gradients = {
            str(index): p.grad.cpu().numpy()
            for index, p in enumerate(self._parameters)
            if p.grad is not None
        }
        try:
            _, units = clipped_units(gradients, self._clip)
        except ValueError:
            return
        for index, values in units.items():
            self._sums[int(index)] += values

    def sums(self) -> list[NDArray[np.float64]]:
        """Return the sums so far, without noise: for tests."""
        return [values / GRID for values in self._sums]

    def put_mean(
        self, multiplier: float, samples: float, random_bytes: RandomBytes
    ) -> None:
        """Put the sum with noise, over the samples expected, in place of gradients."""
        deviation = self._clip * multiplier
        for p, values in zip(self._parameters, self._sums, strict=True):
            noise = noise_units(values.size, deviation, random_bytes)
            values += noise.reshape(values.shape)
            values /= GRID * samples
            p.grad = torch.from_numpy(values.astype(np.float32)).to(p.device)


def drawn(samples: int, rate: float, random_bytes: RandomBytes) -> NDArray[np.int64]:
    """Draw who takes part in a step: each by a chance ``rate`` of its own."""
    bits = np.frombuffer(random_bytes(8 * samples), dtype="<u8")
    # Of 53 bits: float64 has all of them.
    return np.flatnonzero((bits >> np.uint64(11)).astype(np.float64) < rate * 2.0**53)


def check_separable(
    model: MoEModel, objective: Objective, settings: TrainingSettings
) -> None:
    """Check that the loss is a mean over samples of what each says by itself.

    Raises
    ------
    SettingsError
        Naming what it is that would join them.
    """
    norms = any(isinstance(m, _BatchNorm) and m.training for m in model.modules())
    device = next(model.parameters()).device
    for found, what, why in (
        (objective.gate_balance, "gate-balance", "it is of a batch; set it to 0"),
        (
            objective.shift is not None,
            "loss-calibration",
            "the labels of all samples are in the loss of each; set it to 0",
        ),
        (
            objective.present is not None,
            "a loss over the classes that are here",
            "all labels say which these are; choose another strategy",
        ),
        (norms, 'norm = "batch"', 'it is of a batch; norm = "group" is of a sample'),
        (
            precision_on(device, settings) != torch.float32,
            f"precision = {settings.precision!r}",
            "sums are exact in float32 only",
        ),
    ):
        if found:
            raise SettingsError(f'{what} is not allowed with privacy = "device": {why}')


def _seed(random_bytes: RandomBytes) -> int:
    return int.from_bytes(random_bytes(16), "big")


def _generator(random_bytes: RandomBytes) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(random_bytes) >> 65)
