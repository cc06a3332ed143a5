"""From settings to data and to the shape of the model, the same on both sides."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.checkpoint import fingerprint, read_checkpoint, tokeniser_of
from common.config import Settings
from common.data import (
    Dataset,
    HashedPieces,
    Tokeniser,
    load_dataset,
    parse_partition,
    reserved_split,
    stratified_subset,
)
from common.data.partition_kinds import NO_OWNERS
from common.inputs import Inputs
from common.model_settings import PRETRAINED
from common.moe import EncoderSpec, ModelSpec
from common.sections import SettingsError
from common.seeding import stream
from common.wire import TrainOrder


def dataset_of(settings: Settings) -> Dataset:
    """Return the data set the settings name, loaded once per process.

    Raises
    ------
    DataError
        If it cannot be used.
    SettingsError
        If the partition needs what the data do not say.
    """
    data = settings.data
    dataset = load_dataset(data.dataset, data.data_dir, tokeniser_for(settings))
    by_owner = parse_partition(data.partition).kind == "natural"
    if by_owner and dataset.owner_train is None:
        raise SettingsError(f"dataset = {data.dataset!r} is not allowed: {NO_OWNERS}")
    return dataset


def tokeniser_for(settings: Settings) -> Tokeniser:
    """Return what makes token ids of texts: a pretrained checkpoint has its own."""
    data, model = settings.data, settings.model
    if model.backbone == PRETRAINED:
        return tokeniser_of(read_checkpoint(model.pretrained), data.text_length)
    return HashedPieces(length=data.text_length, vocabulary=data.vocabulary)


def checkpoint_hash(settings: Settings) -> str:
    """Return the fingerprint of the pretrained checkpoint, "" without one.

    Server and devices read configuration and tokeniser each for themselves.
    """
    if settings.model.backbone != PRETRAINED:
        return ""
    return fingerprint(read_checkpoint(settings.model.pretrained))


def test_samples(
    settings: Settings, dataset: Dataset
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the global test set, or the seeded subset ``test-samples`` asks for."""
    wanted = settings.data.test_samples
    if not wanted or wanted >= len(dataset.y_test):
        return dataset.x_test, dataset.y_test
    rng = stream(settings.run.seed, "data", "test-samples")
    rows = stratified_subset(dataset.y_test, wanted, rng)
    return dataset.x_test[rows], dataset.y_test[rows]


def reserved_samples(
    settings: Settings, dataset: Dataset
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the server's own samples D^r, which no client has (METHODS 3)."""
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


def model_spec(settings: Settings, data: Dataset | Inputs) -> ModelSpec:
    """Return the full mixture's shape, for a data set or for what is known of one.

    Raises
    ------
    SettingsError
        If the backbone reads text and the data are none, or the other way round.
    """
    model = settings.model
    if model.takes_tokens != (data.kind == "int64"):
        has, wants = "text", "a backbone for text, e.g. text-transformer"
        if model.takes_tokens:
            has, wants = "no text", "mlp, cnn, resnet8 or resnet18"
        raise SettingsError(
            f"backbone = {model.backbone!r} is not allowed with dataset = "
            f"{settings.data.dataset!r}, which is {has}: choose {wants}"
        )
    encoder = None
    if model.backbone == PRETRAINED:
        model.check_depths("the blocks of the checkpoint")
        found = read_checkpoint(model.pretrained)
        encoder = EncoderSpec(
            vocabulary=data.vocabulary,
            layers=found.layers,
            width=found.width,
            heads=found.heads,
            moe_layers=model.moe_depths,
            routing=model.routing,
            config=found.config,
        )
    elif model.takes_tokens:
        encoder = EncoderSpec(
            vocabulary=data.vocabulary,
            layers=model.encoder_layers,
            width=model.encoder_width,
            heads=model.encoder_heads,
            moe_layers=model.moe_depths,
            routing=model.routing,
        )
    return ModelSpec(
        backbone=model.backbone,
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        num_experts=model.num_experts,
        expert_hidden=model.expert_hidden,
        top_k=model.top_k,
        norm=model.norm,
        encoder=encoder,
    )


def ordered_spec(spec: ModelSpec, order: TrainOrder) -> ModelSpec:
    """Return the shape a client builds to carry out an order."""
    encoder = spec.encoder
    if encoder is not None:
        encoder = replace(encoder, base=order.base or "")
    return replace(
        spec,
        encoder=encoder,
        num_experts=order.num_experts,
        top_k=order.top_k,
        width=order.width,
        common_gate=order.common_gate,
        mixes=order.mixes,
    )
