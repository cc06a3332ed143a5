"""Samples prepared batch by batch train the same model as samples prepared at once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client_app import model_inputs as module
from client_app.model_inputs import ModelInputs, model_inputs
from client_app.training import Objective, evaluate, train
from common.data import ClientData, Normaliser
from common.moe import ModelSpec
from common.own import mapped as pages
from common.own.mapped import mapped, release
from common.seeding import stream
from common.settings.training_settings import TrainingSettings

SPEC = ModelSpec(
    backbone="cnn",
    input_shape=(3, 8, 8),
    num_classes=3,
    num_experts=3,
    top_k=1,
    expert_hidden=8,
)
SCALE = Normaliser(scale=255.0, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
CPU = torch.device("cpu")


def stored(n: int = 90) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def owned(x: np.ndarray) -> ClientData:
    rows = np.arange(len(x))
    return ClientData(
        x=x,
        y=rows % 3,
        train=rows,
        held_out=rows[:0],
        num_classes=3,
        input_shape=SPEC.input_shape,
        normaliser=SCALE,
    )


def both(x: np.ndarray, rows: np.ndarray) -> tuple[torch.Tensor, ModelInputs]:
    at_once = model_inputs(owned(x), x, rows, CPU)
    assert isinstance(at_once, torch.Tensor)
    return at_once, ModelInputs(owned(x), x, rows, CPU)


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_the_model_is_the_same_bit_for_bit(batch_size: int) -> None:
    rows = np.random.default_rng(1).permutation(90)[:60]
    y = torch.from_numpy(rows % 3)
    trained = []
    for x in both(stored(), rows):
        model = SPEC.build([0, 2], seed=0)
        result = train(
            model,
            x,
            y,
            settings=TrainingSettings(local_epochs=2, batch_size=batch_size),
            objective=Objective(gate_exploration=0.1),
            rng=stream(0, "t"),
        )
        counts = evaluate(model, x, y)
        trained.append((model, result.train_loss, counts.numbers.tolist()))
    (first, *one), (second, *other) = trained
    assert one == other
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rows_of_a_tensor_of_positions_and_of_a_slice() -> None:
    rows = np.array([5, 3, 8, 8])
    at_once, in_batches = both(stored(), rows)
    assert len(in_batches) == 4
    assert torch.equal(in_batches[torch.tensor([3, 0])], at_once[[3, 0]])
    assert torch.equal(in_batches[1:9], at_once[1:9])
    assert torch.equal(in_batches.whole(), at_once)


def test_many_samples_are_not_prepared_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, rows = stored(), np.arange(90)
    size = 90 * 3 * 8 * 8 * 4
    monkeypatch.setattr(module, "AT_ONCE", size)
    assert isinstance(model_inputs(owned(x), x, rows, CPU), torch.Tensor)
    monkeypatch.setattr(module, "AT_ONCE", size - 1)
    assert isinstance(model_inputs(owned(x), x, rows, CPU), ModelInputs)


def test_one_batch_is_prepared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    normalise = ClientData.normalise

    def noting(data: ClientData, x: np.ndarray) -> np.ndarray:
        sizes.append(len(x))
        return normalise(data, x)

    monkeypatch.setattr(ClientData, "normalise", noting)
    x = ModelInputs(owned(stored()), stored(), np.arange(90), CPU)
    y = torch.arange(90) % 3
    model = SPEC.build([0], seed=0)
    settings = TrainingSettings(local_epochs=1, batch_size=16)
    train(model, x, y, settings=settings, objective=Objective(), rng=stream(0, "t"))
    assert max(sizes) == 16 and sum(sizes) == 90


def test_pages_that_were_read_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = []
    monkeypatch.setattr(pages, "release", lambda x: released.append(len(x)))
    monkeypatch.setattr(pages, "PIECE", 10 * pages.AROUND)
    x = ModelInputs(owned(stored()), stored(), np.arange(90), CPU)
    for start in range(0, 90, 6):
        x[start : start + 6]
    assert released == [90] * 7


def test_mapped_samples_are_still_there_after_their_release(tmp_path: Path) -> None:
    x = stored()
    (tmp_path / "x").write_bytes(b"head" + x.tobytes())
    with (tmp_path / "x").open("rb") as file:
        there = mapped(file, x.shape[1:], x.dtype, len(x), start=4)
    (tmp_path / "x").unlink()
    assert np.array_equal(there, x)
    release(there)
    assert np.array_equal(there, x) and not there.flags.writeable
    release(x)  # not mapped: nothing to give back
