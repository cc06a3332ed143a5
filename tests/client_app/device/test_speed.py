"""The speed of a device: measured once, kept, and measured again if that is lost."""

import json
from pathlib import Path

import pytest
import torch

from client_app.device import speed
from common.moe import ModelSpec, MoEModel

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
    monkeypatch.setattr(
        "client_app.device.speed.time.perf_counter", lambda: next(ticks) / 100
    )
    state = torch.get_rng_state()
    flops = 2 * (64 * 32 + 32 * 10)
    assert speed.measure(SPEC, batch=16) == pytest.approx(3 * flops * 16 * 19 / 0.2)
    assert torch.equal(torch.get_rng_state(), state), "training must not notice"


def test_a_step_is_one_of_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[int, ...]] = []
    build = ModelSpec.build

    def built(spec: ModelSpec, experts: list[int]) -> MoEModel:
        held.append(tuple(experts))
        return build(spec, experts)

    monkeypatch.setattr(ModelSpec, "build", built)
    ticks = iter(range(1000))
    monkeypatch.setattr(
        "client_app.device.speed.time.perf_counter", lambda: next(ticks) / 100
    )
    assert speed.step_seconds(SPEC, 3, 16) == pytest.approx(0.2 / 19)
    assert speed.step_seconds(SPEC, 1, 16, seconds=0.0) == pytest.approx(0.02)
    assert held == [(0, 1, 2), (0,)]


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
    # Without a place to keep it, every run measures.
    speed.training_speed(SPEC, 16)
    assert measured == [16, 32, 16]


@pytest.mark.parametrize(
    "damaged", ['{"half', "[1, 2]", "null", "\xff", "NaN", "-1", "0"]
)
def test_a_damaged_file_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    monkeypatch.setattr(speed, "measure", lambda *_: 7.0)
    speed.training_speed(SPEC, 16, str(tmp_path))
    path = tmp_path / speed.FILE
    if damaged in ("NaN", "-1", "0"):
        path.write_text(path.read_text().replace("7.0", damaged))
    else:
        path.write_bytes(damaged.encode("latin-1"))
    monkeypatch.setattr(speed, "measure", lambda *_: 8.0)
    assert speed.training_speed(SPEC, 16, str(tmp_path)) == 8
