"""Low-rank updates of a frozen encoder's linear layers, gated."""

import json
from copy import deepcopy
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.cost import training_memory
from common.data import Normaliser
from common.errors import SettingsError
from common.hub import (
    SHIFT,
    blocks_of,
    load_weights,
    read_checkpoint,
    tokeniser_of,
)
from common.linears import find_linears
from common.moe import EncoderSpec, ModelSpec, MoELayer, MoEModel, Routing, mixing
from common.moe.bases import freeze, install, installed
from common.moe.ensemble import GatedMixture, UsageMixture
from common.moe.lora import LoRAExpert, PerLinear
from common.moe.vectors import pack
from common.task.known import task_of_shape
from tests.checkpoints import WIDTH, save
from tests.common.moe.support import exported_answer
from tests.common.moe.test_pretrained import TOKENS, spec_of
from tests.real_weights import minilm

RANK, ALPHA = 2, 6.0


def lora_of(kind: str, folder: Path, targets: str = "", top_k: int = 1) -> ModelSpec:
    """Return a spec of LoRA in blocks 1 and 3 of three; its base is installed."""
    spec = spec_of(kind, folder)
    assert spec.encoder is not None
    linears = find_linears(read_checkpoint(str(folder)), targets)
    encoder = replace(spec.encoder, linears=linears, alpha=ALPHA)
    return replace(
        spec, expert="lora", expert_hidden=RANK, encoder=encoder, top_k=top_k
    )


@pytest.fixture(params=["bert", "gpt2"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> ModelSpec:
    return lora_of(request.param, tmp_path)


def test_an_update_is_what_the_paper_says() -> None:
    # r = 2, alpha = 6: three times B A x.
    expert = LoRAExpert(3, 2, 2, 6.0 / 2)
    with torch.no_grad():
        expert.a.weight.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 1.0]]))
        expert.b.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 0.5]]))
    x = torch.tensor([[1.0, 2.0, 3.0]])
    # A x = (1 + 6, -2 + 3) = (7, 1); B (7, 1) = (9, 0.5).
    assert expert(x).tolist() == [[27.0, 1.5]]
    expert.start_silent()
    assert expert(x).tolist() == [[0.0, 0.0]]
    assert expert.a.weight.any()


def test_a_token_gets_the_weighted_sum_of_the_updates_it_chose() -> None:
    kind = PerLinear(LoRAExpert, [(2, 2), (1, 2)], 3.0)  # rank 1: scale 3
    layer = MoELayer(
        in_features=2,
        hidden=1,
        out_features=2,
        num_experts=2,
        held=(0, 1),
        top_k=2,
        expert=kind,
    )
    with torch.no_grad():
        # What the gate sees, (1, 0), has logits 0 and log 3: weights 1/4 and 3/4.
        layer.gate.weight.copy_(torch.tensor([[0.0, 0.0], [np.log(3.0), 0.0]]))
        layer.gate.bias.zero_()
        first, second = layer.members()
        for expert, a, b in (
            (first, [1.0, 1.0], [1.0, 0.0]),
            (second, [1.0, -1.0], [0.0, 1.0]),
        ):
            assert isinstance(expert, LoRAExpert)
            expert.a.weight.copy_(torch.tensor([a]))
            expert.b.weight.copy_(torch.tensor([b]).T)
    record: list[Routing] = []
    real = torch.tensor([[True, False]])
    seen = torch.tensor([[[1.0, 0.0], [9.0, 9.0]]])
    update = mixing.routed(layer, "token", None, record).choose(seen, real)
    # 3 B0 A0 x = 3 (2 + 4, 0); 3 B1 A1 x = 3 (0, 2 - 4). Padding gets nothing.
    found = update(torch.tensor([[[2.0, 4.0], [5.0, 5.0]]]), 0)
    expected = torch.tensor([[[0.25 * 18, 0.75 * -6], [0.0, 0.0]]])
    torch.testing.assert_close(found, expected)
    assert update(torch.ones(1, 2, 1), 1).shape == (1, 2, 2)
    assert len(record) == 1  # chosen once for all linear layers of a block
    evenly = mixing.averaged(layer, torch.tensor([0.5, 0.5])).choose(seen, real)
    torch.testing.assert_close(
        evenly(torch.tensor([[[2.0, 4.0]]]), 0), torch.tensor([[[9.0, -3.0]]])
    )


def drawn(spec: ModelSpec, held: list[int], seed: int = 3) -> MoEModel:
    """Return a model whose updates are not zero."""
    model = spec.build(held, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.layers:
            for parameter in layer.experts.parameters():
                parameter.normal_(std=0.3, generator=generator)
    return model


def product(expert: nn.Module) -> torch.Tensor:
    """Return (alpha / r) B A."""
    assert isinstance(expert, LoRAExpert)
    return ALPHA / RANK * expert.b.weight @ expert.a.weight


@pytest.mark.parametrize("targets", ["", "all"])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_updates_are_those_of_the_frozen_weights(
    kind: str, targets: str, tmp_path: Path
) -> None:
    spec = lora_of(kind, tmp_path, targets, top_k=0)
    assert spec.encoder is not None
    model = drawn(spec, [0, 2, 5])
    for layer in model.layers:
        torch.nn.init.zeros_(layer.gate.weight)
        torch.nn.init.zeros_(layer.gate.bias)
    # An even gate over all experts: W + mean of (alpha / r) B A, by hand on a copy.
    merged = deepcopy(installed(spec.encoder.base))
    with torch.no_grad():
        for depth, layer in zip((1, 3), model.layers, strict=True):
            for number, (name, _, _) in enumerate(spec.encoder.linears):
                linear = blocks_of(merged)[depth - 1].get_submodule(name)
                update = torch.stack([product(f) for f in layer.members(number)]).mean(
                    0
                )
                weight = linear.get_parameter("weight")
                weight.add_(update.T if kind == "gpt2" else update)
        real = (TOKENS != 0).float()
        out = merged(input_ids=(TOKENS - 1).clamp_min(0), attention_mask=real)
        mean = (out.last_hidden_state * real[:, :, None]).sum(1) / real.sum(1)[:, None]
        expected = model.extractor.head(model.extractor.norm(mean))  # type: ignore[operator]
        torch.testing.assert_close(model(TOKENS).logits, expected)
        averaged = UsageMixture(model, [0.5, 0.5, 1.0])
        torch.testing.assert_close(averaged(TOKENS), expected.softmax(1))


def test_untrained_updates_change_nothing(spec: ModelSpec) -> None:
    model = spec.build([0, 5], seed=1).eval()
    with torch.no_grad():
        plain = model.extractor.head(  # type: ignore[operator]
            model.extractor.norm(model.extractor.features(TOKENS))  # type: ignore[operator]
        )
        torch.testing.assert_close(model(TOKENS).logits, plain)


def test_all_pairs_of_a_block_are_one_expert(spec: ModelSpec) -> None:
    assert spec.encoder is not None
    bert = "bert" in spec.encoder.config
    names = [name for name, _, _ in spec.encoder.linears]
    assert names == (
        ["attention.self.query", "attention.self.value"] if bert else ["attn.c_attn"]
    )
    values = RANK * (2 * (WIDTH + WIDTH) if bert else WIDTH + 3 * WIDTH)
    assert spec.size("expert.6") == values
    assert spec.flops("expert.6") == 2 * 8 * values  # eight tokens
    assert len(spec.initial(0, ["expert.6"])["expert.6"]) == values
    costs = training_memory(spec, batch=4, train_samples=4, test_samples=0)
    # One more of top-1 in both layers: four copies of its values, an optimizer apart.
    assert (costs[1:3] - costs[:2]).tolist() == [4 * 4 * 2 * values] * 2
    facts = json.loads(json.dumps(asdict(spec)))
    assert ModelSpec.from_facts(facts) == spec


def test_only_updates_gates_and_head_learn(spec: ModelSpec) -> None:
    assert spec.encoder is not None
    model = spec.build([0, 1, 4, 5], seed=2).train()
    before, y = pack(installed(spec.encoder.base)).copy(), torch.tensor([0, 2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(TOKENS).logits, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert np.array_equal(pack(installed(spec.encoder.base)), before)
    fresh = spec.build([0, 1, 4, 5], seed=2)
    moved = [
        name
        for name, vector in model.vectors(model.parts()).items()
        if not np.array_equal(vector, fresh.vectors([name])[name])
    ]
    assert {"extractor", "gate"} < {*moved}
    model.eval()
    with torch.no_grad():  # padding changes nothing
        short = model(TOKENS[:1, :5]).logits
        torch.testing.assert_close(model(TOKENS).logits[:1], short)


def test_a_graph_of_it_answers_the_same(spec: ModelSpec) -> None:
    model = drawn(replace(spec, top_k=2), [0, 2, 3, 5, 7])
    mixture = GatedMixture(model)
    with torch.no_grad():
        answer = exported_answer(mixture, TOKENS)
        torch.testing.assert_close(answer.probabilities, mixture(TOKENS))


@pytest.mark.parametrize("targets", ["querry", "query,", "LayerNorm"])
def test_a_name_of_no_linear_layer_is_refused(targets: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save("bert", tmp_path))
    with pytest.raises(SettingsError, match="is no linear layer of a bert, which has"):
        find_linears(checkpoint, targets)


def test_it_is_exported(tmp_path: Path) -> None:
    if find_spec("onnxruntime") is None:
        pytest.skip("the extra `export` is not installed")
    from common.serving.export import export_onnx
    from common.serving.servable import Servable

    spec = lora_of("gpt2", tmp_path)  # whose linear layers are transposed
    assert spec.encoder is not None
    held = (0, 2, 5)
    task = task_of_shape((8,), 3, Normaliser(), spec.encoder.vocabulary)
    servable = Servable(
        predictor=GatedMixture(drawn(spec, list(held))),
        task=task,
        run="r",
        server_round=1,
        experts=held,
    )
    # It is run and compared with torch on sixteen texts before it is kept.
    assert export_onnx(servable, tmp_path / "m.onnx").difference < 1e-4


def test_real_weights_are_updated_and_learn() -> None:
    checkpoint = read_checkpoint(minilm())
    linears = find_linears(checkpoint, "")
    assert linears == (
        ("attention.self.query", 384, 384),
        ("attention.self.value", 384, 384),
    )
    base = freeze(load_weights(minilm()))
    install(base)
    encoder = EncoderSpec(
        vocabulary=checkpoint.words + SHIFT,
        layers=checkpoint.layers,
        width=checkpoint.width,
        heads=checkpoint.heads,
        moe_layers=(6,),
        config=checkpoint.config,
        base=base.version,
        linears=linears,
        alpha=8.0,
    )
    spec = ModelSpec(
        backbone="pretrained",
        input_shape=(12,),
        num_classes=2,
        num_experts=2,
        expert_hidden=4,
        top_k=1,
        expert="lora",
        encoder=encoder,
    )
    assert spec.size("expert.0") == 2 * 4 * (384 + 384)
    model = spec.build((0, 1), seed=0).train()
    good, bad = ["what a lovely day", "i love it"], ["this is awful", "i hate it"]
    tokens = torch.from_numpy(tokeniser_of(checkpoint, 12).encode(good + bad))
    y = torch.tensor([1, 1, 0, 0])
    only = [p for layer in model.layers for p in layer.experts.parameters()]
    optimizer = torch.optim.AdamW(only, lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens.long()).logits, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses
