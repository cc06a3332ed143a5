"""A model is tried on zeros before a device is contacted.

A backbone that cannot take the samples is told by its name, with those that can; a part
from outside that cannot be made, fails or answers in another shape is told by its name,
too, not by a device in the middle of a round.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from common.augment import try_augment
from common.errors import SettingsError
from common.moe import ModelSpec
from common.moe.model import backbone_of
from common.optimizers import find_optimizer
from common.registry import BACKBONES, EXPERTS, OPTIMIZERS, Registry
from common.settings.training_settings import TrainingSettings
from common.text import reason

SAMPLES = 2

LARGE = 64
"""Pixels or steps that are enough for every backbone of ours."""
KINDS = {1: "a table", 2: "a series", 3: "an image"}


def try_parts(spec: ModelSpec, settings: TrainingSettings) -> None:
    """Try the parts from outside, backbone, expert and optimizer, and ``augment``.

    Raises
    ------
    SettingsError
        Naming the part and what is wrong with it.
    """
    check_samples(spec)
    try_augment(settings.augment, spec.input_shape)
    ours = spec.backbone in BACKBONES.built_in
    if not ours and spec.encoder is None and spec.network is None:
        _try_backbone(spec)
    if spec.expert not in EXPERTS.built_in:
        _try_expert(spec)
    if settings.optimizer not in OPTIMIZERS.built_in:
        weight = torch.nn.Parameter(torch.zeros(SAMPLES))
        weight.grad = torch.zeros(SAMPLES)
        _try(
            OPTIMIZERS,
            settings.optimizer,
            lambda: find_optimizer([weight], settings).step(),
        )


def check_samples(spec: ModelSpec) -> None:
    """Check that a backbone of ours takes samples of this shape; texts are not tried.

    Raises
    ------
    SettingsError
        Naming the backbone, the shape and the backbones to choose from.
    """
    if spec.encoder is not None or spec.backbone not in BACKBONES.built_in:
        return
    if not (why := _refused(spec)):
        return
    shape = spec.input_shape
    *some, last = [
        name
        for name in BACKBONES.built_in
        if not getattr(BACKBONES.find(name), "takes_tokens", False)
        and not _refused(replace(spec, backbone=name))
    ]
    choice = f"{', '.join(some)} or {last}" if some else last
    if shape[0] == 1 and len(shape) == 3:
        choice += ", or cnn1d for windows of a series"
    raise BACKBONES.error(
        spec.backbone,
        f"is not allowed with samples of shape {shape}, {KINDS[len(shape)]}: {why}; "
        f"choose {choice}",
    )


@lru_cache(maxsize=64)
def _refused(spec: ModelSpec) -> str:
    """Return why a backbone cannot take such samples, "" if it can."""
    kind, axes = BACKBONES.find(spec.backbone), len(spec.input_shape)
    if getattr(kind, "takes_series", False) and axes != 2:
        return "it is for series, of shape (channels, steps)"
    # What takes a part of an image takes all of it. Not on the meta device: its first
    # convolution imports torch's compiler, which takes seconds in every process.
    first, *rest = spec.input_shape
    shape = (first, *(min(each, LARGE) for each in rest))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            backbone_of(replace(spec, input_shape=shape))(torch.zeros(SAMPLES, *shape))
    except (RuntimeError, ValueError, IndexError):
        # Whatever torch says of it: of convolutions and pooling, in its own words.
        if axes != 3:
            return "it is for images, of shape (channels, height, width)"
        return "the image is too small for its layers"
    return ""


def _try_backbone(spec: ModelSpec) -> None:
    x = torch.zeros(SAMPLES, *spec.input_shape)
    made = _try(BACKBONES, spec.backbone, lambda: backbone_of(spec))
    width = getattr(made, "out_features", None)
    shape = _shape(_try(BACKBONES, spec.backbone, lambda: made(x)))
    if shape != (SAMPLES, width):
        raise BACKBONES.error(
            spec.backbone,
            f"maps {tuple(x.shape)} to {shape}: expected ({SAMPLES}, out_features), "
            f"and its out_features is {width}",
        )


def _try_expert(spec: ModelSpec) -> None:
    kind, outputs = EXPERTS.find(spec.expert), spec.num_classes
    x = torch.zeros(SAMPLES, 3)
    made = _try(EXPERTS, spec.expert, lambda: kind(3, spec.expert_hidden, outputs, 1.0))
    shape = _shape(_try(EXPERTS, spec.expert, lambda: made(x)))
    if shape != (SAMPLES, outputs):
        raise EXPERTS.error(
            spec.expert,
            f"maps {tuple(x.shape)} to {shape}: expected {(SAMPLES, outputs)}",
        )


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _try(registry: Registry, name: str, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except SettingsError:
        raise
    except Exception as error:  # whatever a user's part does
        raise registry.error(name, f"cannot be used: {reason(error)}") from error
