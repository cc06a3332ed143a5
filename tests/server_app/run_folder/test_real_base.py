"""MiniLM with its real weights: what a device that has them is sent."""

from pathlib import Path

import torch

from common.hub import load_weights, read_checkpoint, tokeniser_of
from common.moe.bases import freeze
from tests.checkpoints import Devices
from tests.real_weights import minilm
from tests.server_app.run_folder.test_base_file import (
    CLIENTS,
    config_of,
    pieces_of,
    run,
)
from tests.whole_runs import rounds_of


def test_real_weights_stay_where_they_are(tmp_path: Path) -> None:
    name = minilm()
    config = config_of(tmp_path, "bert", num_rounds=1, pretrained=name)
    config |= {"moe-layers": "6", "test-samples": 10, "train-samples": 12}
    devices = Devices({node: {"pretrained": name} for node in (1, 2, 3)})
    [record] = rounds_of(run(config, devices.app))
    assert pieces_of(devices) == [] and len(record["clients"]) == CLIENTS
    base = freeze(load_weights(name))
    # 22.6 million values (the model card), without the pooler's 384 * 384 + 384.
    values = sum(p.numel() for p in base.module.parameters())
    assert values == 22_713_216 - 147_840
    assert 100 * record["bytes_down"] < CLIENTS * len(base.to_bytes())
    # Real weights: what means the same is nearer than what shares its words.
    texts = ["The film was wonderful.", "A great movie!", "The film was in the box."]
    tokens = torch.from_numpy(tokeniser_of(read_checkpoint(name), 12).encode(texts))
    with torch.no_grad():
        out = base.module(
            input_ids=(tokens - 1).clamp_min(0), attention_mask=(tokens != 0).long()
        ).last_hidden_state
    mean = (out * (tokens != 0)[:, :, None]).sum(1)
    near, far = torch.cosine_similarity(mean[:1], mean[1:])
    assert near > far
