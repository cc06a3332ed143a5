"""The speed of a device: measured once, kept, and measured again if that is lost."""

import json
from pathlib import Path

import pytest
import torch

from client_app import speed
from common.moe import ModelSpec

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=10,
    num_experts=4,
    expert_hidden=32,
    top_k=1,
)


def test_what_is_counted_is_what_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that goes on by 10 ms a look: 19 steps fit before 200 ms are over.
    ticks = iter(range(1000))
    monkeypatch.setattr("client_app.speed.time.perf_counter", lambda: next(ticks) / 100)
    state = torch.get_rng_state()
    flops = 2 * (64 * 32 + 32 * 10)
    assert speed.measure(SPEC, batch=16) == pytest.approx(3 * flops * 16 * 19 / 0.2)
    assert torch.equal(torch.get_rng_state(), state), "training must not notice"


def test_it_is_measured_once_for_each_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(spec: ModelSpec, batch: int) -> float:
        measured.append(batch)
        return 1e9 + batch

    monkeypatch.setattr(speed, "measure", measure)
    for batch in (16, 16, 32, 16):
        assert speed.training_speed(SPEC, batch, str(tmp_path)) == 1e9 + batch
    assert measured == [16, 32]
    assert len(json.loads((tmp_path / speed.FILE).read_text())) == 2
    (tmp_path / speed.FILE).write_text('{"half')
    assert speed.training_speed(SPEC, 16, str(tmp_path)) == 1e9 + 16
    assert measured == [16, 32, 16]
    # Without a place to keep it, every run measures.
    speed.training_speed(SPEC, 16)
    assert measured == [16, 32, 16, 16]
