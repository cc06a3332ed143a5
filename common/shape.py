"""From settings to task, data and the shape of the model, the same on both sides."""

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.acting import encoder_spec, place_of
from common.data import (
    Dataset,
    HashedPieces,
    Tokeniser,
    load_dataset,
    parse_partition,
    reserved_split,
    stratified_subset,
)
from common.data.domains import check_factors
from common.data.partition_kinds import NO_OWNERS
from common.errors import SettingsError
from common.hub import fingerprint, read_checkpoint, tokeniser_of
from common.moe import ModelSpec
from common.moe.image_network import NetworkSpec, measured
from common.networks.look import Look
from common.parts import HEAD, NORM
from common.registry import BACKBONES
from common.seeding import stream
from common.settings import Settings
from common.settings.model_settings import PRETRAINED
from common.task import ImageTask, Task, TextTask, read_task
from common.task.known import task_of
from common.wire import TrainOrder


def server_task(settings: Settings) -> Task:
    """Return the task of a run, as the server knows it before anybody is asked.

    From the file that ``task`` names, else from the data set.

    Raises
    ------
    DataError, SettingsError
        If neither can be used.
    """
    data = settings.data
    if not data.task:
        return task_of_set(settings, dataset_of(settings))
    task = read_task(data.task)
    if not isinstance(task, TextTask):
        return seen_by_network(settings, task)
    tokeniser = tokeniser_for(settings)
    has = {"length": tokeniser.length, "vocabulary": tokeniser.vocabulary}
    for key in has.keys() & task.model_fields_set:
        if getattr(task, key) != has[key]:
            raise SettingsError(
                f"{data.task}: {key} = {getattr(task, key)} is not allowed: the "
                f"tokeniser of this run has {has[key]} (text-length, vocabulary)"
            )
    return task.model_copy(update=has)


def dataset_of(settings: Settings) -> Dataset:
    """Return the data set the settings name, loaded once per process.

    There is none where ``task`` is set: ask only where it is not.

    Raises
    ------
    DataError
        If it cannot be used.
    SettingsError
        If the partition needs what the data do not say.
    """
    data = settings.data
    dataset = load_dataset(
        data.dataset,
        data.data_dir,
        tokeniser_for(settings),
        data.reader,
        series=settings.model.takes_series,
    )
    spec = parse_partition(data.partition)
    check_factors(dataset, spec.factors)
    if spec.kind == "natural" and dataset.owner_train is None:
        raise SettingsError(f"dataset = {data.dataset!r} is not allowed: {NO_OWNERS}")
    if settings.model.is_network and len(dataset.input_shape) == 3:
        return _in_scale(dataset, look_of(settings))
    return dataset


# The same object every time: what is known of a data set is kept by its identity.
@lru_cache(maxsize=4)
def _in_scale(dataset: Dataset, look: Look) -> Dataset:
    scale = look.scale(dataset.input_shape[0])
    normaliser = replace(dataset.normaliser, mean=scale.mean, std=scale.std)
    return replace(dataset, normaliser=normaliser)


def look_of(settings: Settings) -> Look:
    """Return how a network of images sees them: as its weights and settings say.

    Raises
    ------
    SettingsError
        If it cannot be found, or its weights.
    """
    model = settings.model
    look: Look = BACKBONES.find(model.backbone).look_at(model.pretrained)
    return look.with_setting(model.preprocessing)


def seen_by_network(settings: Settings, task: Task) -> Task:
    """Return a task that says how a network of images sees them, if it is for one."""
    if not isinstance(task, ImageTask) or not settings.model.is_network:
        return task
    return look_of(settings).in_task(task)


def task_of_set(settings: Settings, dataset: Dataset) -> Task:
    """Return the task of a data set that all share."""
    return seen_by_network(settings, task_of(dataset, settings.data.held_out))


def tokeniser_for(settings: Settings) -> Tokeniser:
    """Return what makes token ids of texts: a pretrained checkpoint has its own."""
    data, model = settings.data, settings.model
    if model.backbone == PRETRAINED:
        return tokeniser_of(read_checkpoint(model.pretrained), data.text_length)
    return HashedPieces(length=data.text_length, vocabulary=data.vocabulary)


def tokeniser_of_task(task: TextTask, pretrained: str = "") -> Tokeniser:
    """Return what made token ids of texts for a model of a task.

    Parameters
    ----------
    task : TextTask
    pretrained : str
        The checkpoint it is built around, which has its own; "" for none.
    """
    if pretrained:
        return tokeniser_of(read_checkpoint(pretrained), task.length)
    return HashedPieces(length=task.length, vocabulary=task.vocabulary)


def checkpoint_hash(settings: Settings) -> str:
    """Return the fingerprint of the pretrained checkpoint, "" without one.

    Server and devices read configuration and tokeniser each for themselves. Of a
    network of images, it is how it sees them; a task that is sent says it itself.
    """
    if settings.model.is_network and not settings.data.task:
        return hashlib.sha256(repr(look_of(settings)).encode()).hexdigest()[:16]
    if settings.model.backbone != PRETRAINED:
        return ""
    return fingerprint(read_checkpoint(settings.model.pretrained))


def test_samples(
    settings: Settings, dataset: Dataset
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the global test set, or the seeded subset ``test-samples`` asks for."""
    rows = test_rows(settings, dataset.y_test)
    if len(rows) == len(dataset.y_test):
        return dataset.x_test, dataset.y_test
    return dataset.x_test[rows], dataset.y_test[rows]


def test_rows(settings: Settings, y_test: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which rows of a test set are measured on; see :func:`test_samples`."""
    wanted = settings.data.test_samples
    if not wanted or wanted >= len(y_test):
        return np.arange(len(y_test))
    rng = stream(settings.run.seed, "data", "test-samples")
    return stratified_subset(y_test, wanted, rng)


def reserved_samples(
    settings: Settings, dataset: Dataset
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the server's own samples D^r, which no client has (docs/methods.md, 3)."""
    rows, _ = reserved_split(dataset, settings.data.reserved_samples, settings.run.seed)
    return dataset.x_train[rows], dataset.y_train[rows]


def device_of(settings: Settings) -> torch.device:
    """Return where to compute; ``auto`` is a GPU if there is one.

    Raises
    ------
    SettingsError
        If a GPU is asked for and there is none.
    """
    wanted, there = settings.training.device, torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise SettingsError('device = "cuda" is not allowed here: torch sees no GPU')
    return torch.device("cpu" if wanted == "cpu" or not there else "cuda")


def model_spec(settings: Settings, data: Task | Dataset) -> ModelSpec:
    """Return the full mixture's shape for a task, or that of a data set.

    Raises
    ------
    SettingsError
        If the backbone reads text and the data are none, or the other way round; if it
        cannot take samples of this shape.
    """
    model = settings.model
    task = task_of(data) if isinstance(data, Dataset) else data
    task = seen_by_network(settings, task)
    if model.takes_tokens != isinstance(task, TextTask):
        has, wants = "text", "a backbone for text, e.g. text-transformer"
        if model.takes_tokens:
            has, wants = "no text", "mlp, cnn, cnn1d, resnet8 or resnet18"
        given = settings.data
        what = (
            f"task = {given.task!r}" if given.task else f"dataset = {given.dataset!r}"
        )
        raise SettingsError(
            f"backbone = {model.backbone!r} is not allowed with {what}, which is "
            f"{has}: choose {wants}"
        )
    place_of(model)
    encoder = encoder_spec(model, task) if isinstance(task, TextTask) else None
    network = None
    if model.is_network:
        network = _network_spec(settings, task)
    elif model.pretrained and encoder is None:
        raise SettingsError(
            f"pretrained = {model.pretrained!r} is not allowed with backbone = "
            f"{model.backbone!r}, which is no network with weights of its own"
        )
    return ModelSpec(
        backbone=model.backbone,
        input_shape=task.input_shape,
        num_classes=task.num_classes,
        num_experts=model.num_experts,
        expert=model.expert,
        expert_hidden=model.expert_hidden,
        top_k=model.top_k,
        norm=model.norm,
        encoder=encoder,
        network=network,
    )


def _network_spec(settings: Settings, task: Task) -> NetworkSpec:
    model = settings.model
    if not isinstance(task, ImageTask) or task.preprocessing is None:
        raise SettingsError(
            f"backbone = {model.backbone!r} is not allowed with samples of shape "
            f"{task.input_shape}: it is for images, of shape (channels, height, width)"
        )
    seen = task.preprocessing
    stages = measured(model.backbone, seen.size).stages
    frozen: int | None = 0
    if model.pretrained and model.freeze != "none":
        frozen = None if model.freeze == "all" else int(model.freeze)
    if frozen and frozen > stages:
        raise SettingsError(
            f"freeze = {model.freeze!r} is not allowed with backbone = "
            f"{model.backbone!r}, which has {stages} stages: all, none or 1 to {stages}"
        )
    return NetworkSpec(
        name=model.backbone,
        size=seen.size,
        interpolation=seen.interpolation,
        channels=seen.channels,
        frozen=frozen,
        pretrained=bool(model.pretrained),
    )


def ordered_spec(spec: ModelSpec, order: TrainOrder) -> ModelSpec:
    """Return the shape a client builds to carry out an order."""
    return replace(
        spec.with_base(order.base or ""),
        num_experts=order.num_experts,
        top_k=order.top_k,
        width=order.width,
        common_gate=order.common_gate,
        mixes=order.mixes,
        apart=tuple(part for part in (NORM, HEAD) if part in order.private_parts),
    )
