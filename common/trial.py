"""A model is tried on zeros before a device is contacted.

A backbone that cannot take the samples is told by its name, with those that can; a part
from outside that cannot be made, fails or answers in another shape is told by its name,
too, not by a device in the middle of a round.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NoReturn

import torch

from common.augment import try_augment
from common.errors import SettingsError
from common.moe import ModelSpec
from common.moe.experts import acts_on, run_experts, silence
from common.moe.flops import flops_of
from common.moe.model import backbone_of
from common.optimizers import find_optimizer
from common.registry import BACKBONES, EXPERTS, OPTIMIZERS, Registry
from common.settings.training_settings import TrainingSettings
from common.text import reason

SAMPLES, INPUTS = 2, 3

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
    kind = EXPERTS.find(spec.expert)
    place = _try(EXPERTS, spec.expert, lambda: acts_on(kind))
    if spec.encoder is None and place == "maps":
        _check_maps(spec)
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


def _check_maps(spec: ModelSpec) -> None:
    """Check that a backbone has maps of more than one place."""
    name, samples = spec.backbone, spec.input_shape
    backbone = _try(BACKBONES, name, lambda: backbone_of(spec))
    if not hasattr(backbone, "maps"):
        raise EXPERTS.error(
            spec.expert,
            f"is not allowed with backbone = {name!r}, which has no maps: choose cnn, "
            "resnet8 or resnet18, or expert = 'mlp'",
        )
    with torch.no_grad():
        shape = _shape(
            _try(BACKBONES, name, lambda: backbone.maps(torch.zeros(SAMPLES, *samples)))
        )
    if shape is None or len(shape) != 4 or shape[1] != backbone.out_features:
        raise BACKBONES.error(
            name, f"has maps of shape {shape}: expected (N, out_features, H, W)"
        )
    if shape[2:] == (1, 1):
        raise EXPERTS.error(
            spec.expert,
            f"is not allowed with backbone = {name!r} and samples of shape {samples}: "
            "maps of 1 x 1 have no places; choose mlp",
        )


@torch.random.fork_rng(devices=[])
@torch.no_grad()
def _try_expert(spec: ModelSpec) -> None:
    """Hold a user's kind to what :class:`common.moe.experts.Expert` says."""

    def attempt(act: Callable[[], Any]) -> Any:
        return _try(EXPERTS, spec.expert, act)

    def refuse(why: str) -> NoReturn:
        raise EXPERTS.error(spec.expert, why)

    kind = EXPERTS.find(spec.expert)
    place = attempt(lambda: acts_on(kind))
    outputs = INPUTS if place in {"blocks", "linears"} else spec.num_classes
    x = torch.randn(2 * SAMPLES, INPUTS, *((4, 4) if place == "maps" else ()))
    make = partial(kind, INPUTS, spec.expert_hidden, outputs, 1.0)
    two = [attempt(make), attempt(make)]
    alone = [attempt(lambda each=each: each(x)) for each in two]  # type: ignore[misc]
    if (shape := _shape(alone[0])) != (len(x), outputs):
        refuse(f"maps {tuple(x.shape)} to {shape}: expected {(len(x), outputs)}")
    if not any(p.requires_grad for p in two[0].parameters()):
        refuse("cannot be used: it has no parameters to train")
    if not attempt(lambda: flops_of(two[0], x)) > 0:
        refuse(
            "cannot be used: it has no linear or convolution layer whose operations "
            "could be counted: expected a method flops(x)"
        )
    slots = torch.arange(len(x))[:, None] % 2
    taken = slots[:, :, None].expand(-1, -1, outputs)
    expected = torch.stack(alone, 1).gather(1, taken)
    mixed = attempt(lambda: run_experts(x, two, slots))
    if _shape(mixed) != _shape(expected) or not torch.allclose(
        mixed, expected, rtol=1e-3, atol=1e-4
    ):
        refuse("is not allowed: its run_together answers otherwise than one by one")
    attempt(lambda: silence(two[0]))
    if hasattr(two[0], "start_silent") and attempt(lambda: two[0](x)).any():
        refuse("is not allowed: it still answers something after start_silent()")


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _try(registry: Registry, name: str, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except SettingsError:
        raise
    except Exception as error:  # whatever a user's part does
        raise registry.error(name, f"cannot be used: {reason(error)}") from error
