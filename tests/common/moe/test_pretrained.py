"""Adapters in a frozen BERT or GPT-2."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.cost import training_memory
from common.hub import SHIFT, load_weights, read_checkpoint
from common.moe import EncoderSpec, ModelSpec
from common.moe.bases import (
    base_of,
    base_values,
    fill,
    freeze,
    install,
    installed,
    read,
)
from common.moe.pretrained import base_flops
from common.moe.vectors import pack
from tests.checkpoints import BLOCKS, WIDTH, save


def spec_of(kind: str, folder: Path) -> ModelSpec:
    """Return a spec whose base is installed: mixtures after blocks 1 and 3 of three."""
    name = save(kind, folder)
    found, base = read_checkpoint(name), freeze(load_weights(name))
    install(base)
    return ModelSpec(
        backbone="pretrained",
        input_shape=(8,),
        num_classes=3,
        num_experts=4,
        expert_hidden=5,
        top_k=1,
        encoder=EncoderSpec(
            vocabulary=found.words + SHIFT,
            layers=found.layers,
            width=found.width,
            heads=found.heads,
            moe_layers=(1, 3),
            config=found.config,
            base=base.version,
        ),
    )


TOKENS = torch.tensor([[3, 6, 7, 8, 4, 0, 0, 0], [3, 5, 9, 9, 6, 7, 7, 4]])


@pytest.fixture(params=["bert", "gpt2"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> ModelSpec:
    return spec_of(request.param, tmp_path)


def test_untrained_adapters_change_nothing(spec: ModelSpec) -> None:
    model = spec.build([0, 5], seed=1).eval()
    assert spec.encoder is not None
    real = (TOKENS != 0).float()
    plain = installed(spec.base)(
        input_ids=(TOKENS - 1).clamp_min(0), attention_mask=real
    ).last_hidden_state
    mean = (plain * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
    with torch.no_grad():
        torch.testing.assert_close(model.extractor.features(TOKENS), mean)  # type: ignore[operator]
        expected = model.extractor.head(model.extractor.norm(mean))  # type: ignore[operator]
        torch.testing.assert_close(model(TOKENS).logits, expected)


def test_parts_are_head_gate_and_held_adapters_alone(spec: ModelSpec) -> None:
    model = spec.build([1, 2, 6])
    assert sorted(model.parts()) == [
        *("expert.1", "expert.2", "expert.6", "extractor", "gate")
    ]
    adapter = WIDTH * 5 + 5 + 5 * WIDTH + WIDTH
    assert spec.size("expert.6") == adapter
    assert spec.size("extractor") == 2 * WIDTH + 3 * WIDTH + 3
    held = sum(p.numel() for p in model.parameters())
    gates = 2 * (WIDTH * 4 + 4)
    assert held == 3 * adapter + gates + spec.size("extractor")


def test_padding_changes_nothing_and_only_adapters_learn(spec: ModelSpec) -> None:
    assert spec.encoder is not None
    model = spec.build([0, 1, 4, 5], seed=2)
    before = pack(installed(spec.base)).copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model.train()(TOKENS).logits, torch.tensor([0, 2])
        )
        loss.backward()
        optimizer.step()
    assert np.array_equal(pack(installed(spec.base)), before)
    moved = spec.build([0, 1, 4, 5], seed=2).vectors(model.parts())
    after = model.vectors(model.parts())
    assert not np.array_equal(after["extractor"], moved["extractor"])
    experts = [f"expert.{e}" for e in (0, 1, 4, 5)]
    assert any(not np.array_equal(after[e], moved[e]) for e in experts)
    model.eval()
    with torch.no_grad():
        short = model(TOKENS[:1, :5]).logits
        torch.testing.assert_close(model(TOKENS).logits[:1], short)


def test_a_base_that_came_in_a_message_is_the_same(spec: ModelSpec) -> None:
    assert spec.encoder is not None
    sent = read(base_of(spec.base).to_bytes())
    with torch.inference_mode():
        came = fill(spec.encoder.empty(), sent)
    assert came.version == spec.base
    install(replace(came, version=spec.base[::-1]))
    other = spec.with_base(spec.base[::-1])
    model, same = spec.build([0, 4]).eval(), other.build([0, 4])
    torch.testing.assert_close(same.eval()(TOKENS).logits, model(TOKENS).logits)
    same.train()(TOKENS).logits.sum().backward()
    name, tensor = sent.popitem()
    with pytest.raises(ValueError, match=f"the base's {name} is not there"):
        fill(spec.encoder.empty(), sent)
    with pytest.raises(ValueError, match=f"{name} is .*, expected"):
        fill(spec.encoder.empty(), {**sent, name: tensor[:-1]})
    with pytest.raises(LookupError, match="is not loaded"):
        installed("e" * 16)


def test_the_base_counts_in_memory_and_work(spec: ModelSpec) -> None:
    assert spec.encoder is not None
    vector = pack(installed(spec.base))
    assert base_values(spec.encoder) == len(vector)
    # In matrices a block has 4 D^2 weights for attention and 2 * 4 D^2 behind it; the
    # BERT here has a feed-forward layer of 2 D: 4 D^2 + 2 * 2 D^2.
    matrices = (8 if "bert" in spec.encoder.config else 12) * WIDTH**2 * BLOCKS
    assert base_flops(spec.encoder, 8) == 2 * 8 * matrices
    assert spec.flops("extractor") >= 2 * 8 * matrices
    costs = training_memory(spec, batch=2, train_samples=4, test_samples=4)
    assert (costs > 2 * vector.nbytes).all()
