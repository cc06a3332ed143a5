"""Augmentation: by hand, with its streams, and what cannot be used in one line."""

import numpy as np
import pytest
import torch

from client_app.training import Objective, train
from common.augment import find_augment, try_augment
from common.data import Normaliser
from common.errors import SettingsError
from common.moe import ModelSpec
from common.seeding import stream
from common.settings import Settings
from common.settings.training_settings import TrainingSettings

SHAPE = (3, 6, 6)
SCALE = Normaliser(scale=255, mean=(0.2, 0.4, 0.5), std=(0.3, 0.2, 0.1))


def images(count: int = 8) -> torch.Tensor:
    rng = np.random.default_rng(1)
    stored = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return torch.from_numpy(SCALE.apply(stored, SHAPE))


def changed(text: str, seed: int = 0) -> torch.Tensor:
    augment = find_augment(text, SHAPE, SCALE)
    assert augment is not None
    return augment(images(), np.random.default_rng(seed))


def test_transforms_see_brightness_and_each_image_for_itself() -> None:
    x = images()
    torch.testing.assert_close(changed("RandomHorizontalFlip(p=1.0)"), x.flip(3))
    # Inverted is 1 - brightness: (1 - b - mean) / std.
    mean, std = (torch.tensor(v)[:, None, None] for v in (SCALE.mean, SCALE.std))
    inverted = (1 - (x * std + mean) - mean) / std
    torch.testing.assert_close(changed("RandomInvert(1.0)"), inverted)
    flips = (changed("RandomHorizontalFlip") - x).abs().amax((1, 2, 3)) > 1e-3
    assert 0 < flips.sum() < len(flips)
    # Cropped to its own size, after a margin of black.
    crops = changed("RandomCrop(padding=4)")
    assert crops.shape == x.shape
    assert ((crops * std + mean).abs() < 1e-5).any()


def test_the_same_stream_gives_the_same_bits_and_leaves_torchs_alone() -> None:
    before = torch.get_rng_state()
    text = "RandomCrop(padding=2),ColorJitter(brightness=0.3)"
    assert torch.equal(changed(text), changed(text))
    assert not torch.equal(changed(text), changed(text, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_sees_other_images_in_every_epoch_and_the_order_stays() -> None:
    spec = ModelSpec(
        backbone="mlp",
        input_shape=SHAPE,
        num_classes=2,
        num_experts=2,
        expert_hidden=4,
        top_k=1,
    )

    def seen(text: str) -> list[torch.Tensor]:
        model, record = spec.build([0]), []
        model.extractor.register_forward_hook(lambda *args: record.append(args[1][0]))
        settings = TrainingSettings(local_epochs=2, batch_size=4)
        train(
            model,
            images(),
            torch.arange(8) % 2,
            settings=settings,
            objective=Objective(),
            rng=stream(3, "x"),
            augment=find_augment(text, SHAPE, SCALE),
        )
        return record

    plain, flipped = seen(""), seen("RandomHorizontalFlip(p=1.0)")
    for a, b in zip(plain, flipped, strict=True):
        torch.testing.assert_close(b, a.flip(3))
    noisy, again = (
        seen("RandomHorizontalFlip,RandomErasing(p=1.0)"),
        seen("RandomHorizontalFlip,RandomErasing(p=1.0)"),
    )
    for a, b in zip(noisy, again, strict=True):
        assert torch.equal(a, b)
    first, second = (torch.cat(noisy[i : i + 2]).sort(0).values for i in (0, 2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "RandomHorizontalFlp",
            "such transform: .*did you mean 'RandomHorizontal",
        ),
        ("functional", "no such transform"),
        ("RandomCrop(pading=4)", "cannot be used: RandomCrop: .*pading"),
        ("Grayscale", r"gives .* of shape \(1, 6, 6\): expected floats \(3, 6, 6\)"),
        ("MixUp", "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as caught:
        try_augment(text, SHAPE)
    assert "\n" not in str(caught.value)


def test_only_images_are_augmented() -> None:
    with pytest.raises(SettingsError, match=r"shape \(13,\): it is for images"):
        try_augment("RandomHorizontalFlip", (13,))


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('x')", "a.b(1)", "A(x=y)", "A(**{})", "A]+[B", "A(", "1"],
)
def test_nothing_but_names_and_literals_is_read(text: str) -> None:
    with pytest.raises(SettingsError, match="is not allowed: expected names of torchv"):
        Settings.from_run_config({"augment": text})
