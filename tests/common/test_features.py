"""What frozen layers give is computed once, and is what they would give again."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from client_app.app import app as client_app
from common.data import PLAIN, seen_in
from common.feature_table import ROWS, STEP, VALUES, FeatureTable
from common.features import Features, identity_of_test
from common.inline_grid import InlineGrid
from common.shape import dataset_of
from server_app.app import app as server_app
from server_app.run_source import RunSource
from tests.common.moe.test_pretrained import TOKENS
from tests.common.moe.test_pretrained import spec_of as encoder_spec
from tests.common.networks.test_networks import settings_of, spec_of
from tests.common.networks.tiny_network import FEATURES, NAME, weights


def squares(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows, rows**2], axis=1).astype(np.float16)


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob(f"*{VALUES}"))


def test_a_table_computes_only_what_is_not_there(tmp_path: Path) -> None:
    asked: list[int] = []

    def compute(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return squares(rows)

    with FeatureTable(tmp_path, "k", 40, (2,), 10**6) as table:
        assert table.fill(np.array([3, 7, 3]), compute) == 2
    with FeatureTable(tmp_path, "k", 40, (2,), 10**6) as table:
        assert table.fill(np.array([39, 7, 0]), compute) == 2
        values = table.values()
    assert sorted(asked) == [0, 3, 7, 39]
    assert values[[0, 3, 7, 39]].tolist() == squares(np.array([0, 3, 7, 39])).tolist()
    assert not values.flags.writeable


def test_a_crash_and_damage_cost_rows_and_nothing_else(tmp_path: Path) -> None:
    rows = np.arange(2 * STEP)

    def breaks(some: np.ndarray) -> np.ndarray:
        if some[0] or len(some) < STEP:
            raise KeyboardInterrupt
        return squares(some)

    with (
        FeatureTable(tmp_path, "k", len(rows), (2,), 10**6) as table,
        pytest.raises(KeyboardInterrupt),
    ):
        table.fill(rows[:STEP], squares)
        table.fill(rows, breaks)
    with FeatureTable(tmp_path, "k", len(rows), (2,), 10**6) as table:
        assert table.fill(rows, squares) == STEP
        assert (table.values() == squares(rows)).all()
    (tmp_path / f"k{VALUES}").write_bytes(b"half")
    with FeatureTable(tmp_path, "k", len(rows), (2,), 10**6) as table:
        assert table.fill(rows, squares) == len(rows)
        assert (table.values() == squares(rows)).all()


def test_the_table_not_used_longest_makes_room(tmp_path: Path) -> None:
    each = 10 * 2 * 2
    for number, key in enumerate("abc"):
        with FeatureTable(tmp_path, key, 10, (2,), 2 * each) as table:
            table.fill(np.arange(10), squares)
        os.utime(tmp_path / f"{key}{ROWS}", (number, number))
    assert sorted(p.name for p in tmp_path.glob(f"*{VALUES}")) == [
        "b.values",
        "c.values",
    ]
    with FeatureTable(tmp_path, "b", 10, (2,), 2 * each) as table:  # used now
        assert table.fill(np.arange(10), squares) == 0
    with FeatureTable(tmp_path, "d", 10, (2,), 2 * each):
        pass
    assert sorted(p.name for p in tmp_path.glob(f"*{VALUES}")) == [
        "b.values",
        "d.values",
    ]
    with pytest.raises(OSError, match="feature-cache allows 3"):
        FeatureTable(tmp_path, "e", 10, (2,), 3)


def test_other_weights_and_other_data_are_other_features(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    data = dataset_of(settings)
    rows, test = np.arange(30), seen_in(PLAIN, data, data.x_test, data.y_test)
    folder = tmp_path / "features"

    def features() -> np.ndarray:
        found = Features.of(spec_of(settings), folder, 10**8)
        assert found is not None
        kept, chosen = found.rows_of(test, test.x, rows, identity_of_test(data))
        return np.array(kept[chosen])

    one = features()
    assert one.shape == (30, FEATURES)
    assert np.array_equal(one, features())
    assert len(list(folder.glob(f"*{VALUES}"))) == 1
    torch.save(weights(7).state_dict(), tmp_path / "net.pth")
    assert not np.array_equal(one, features())
    settings = settings_of(tmp_path, preprocessing="size=10")
    assert not np.array_equal(one, features())
    assert len(list(folder.glob(f"*{VALUES}"))) == 3
    # Without a place, and with no room for it, they are the same.
    for place, limit in ((None, 10**8), (tmp_path / "small", 5)):
        found = Features.of(spec_of(settings), place, limit)
        assert found is not None
        kept, chosen = found.rows_of(test, test.x, rows, identity_of_test(data))
        assert np.array_equal(kept[chosen], features())


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("depths", [(1, 3), (2,), (3,)])
def test_an_encoder_goes_on_from_its_first_mixture(
    kind: str, depths: tuple[int, ...], tmp_path: Path
) -> None:
    spec = encoder_spec(kind, tmp_path / kind)
    assert spec.encoder is not None
    spec = replace(spec, encoder=replace(spec.encoder, moe_layers=depths))
    model = spec.build(spec.one_of_each, seed=2).eval()
    with torch.no_grad():
        for parameter in model.layers.parameters():  # type: ignore[attr-defined]
            parameter += 0.1 * torch.rand_like(parameter)
    found = Features.of(spec, tmp_path / "features", 10**8)
    assert found is not None

    class Texts:
        normaliser = domain = input_shape = None

        def normalise(self, x: Any) -> Any:
            return x.astype(np.int64)

    tokens = TOKENS.numpy().astype(np.uint16)
    kept, rows = found.rows_of(Texts(), tokens, np.arange(2), "texts")  # type: ignore[arg-type]
    given = torch.from_numpy(found.data.normalise(kept[rows]))
    with torch.no_grad():
        assert torch.allclose(model(given).logits, model(TOKENS).logits, atol=2e-3)
        other = model(TOKENS.flip(0)).logits
        assert not torch.allclose(model(given).logits, other, atol=1e-2)


def run(folder: Path, **changes: Any) -> tuple[list[dict[str, Any]], Path]:
    torch.save(weights().state_dict(), folder / "net.pth")
    config = {
        "dataset": "digits",
        "backbone": NAME,
        "pretrained": str(folder / "net.pth"),
        "strategy": "fedavg",  # no gate: a rounding error sends no sample elsewhere
        "train-samples": 240,
        "test-samples": 0,
        "num-experts": 4,
        "num-rounds": 3,
        "output-dir": str(folder / "results"),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    before = {*(folder / "results").glob("*")}
    context = Context(0, 0, {}, RecordDict(), config)
    server_app(InlineGrid(client_app, 3, config), context)
    [made] = {*(folder / "results").glob("*")} - before
    lines = (made / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], made


def model_of(folder: Path) -> dict[str, np.ndarray]:
    predictor = RunSource(folder).load().predictor
    return {k: v.numpy().copy() for k, v in predictor.state_dict().items()}


def test_a_run_is_the_same_with_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    count = [0]

    def note(_: object, given: tuple[torch.Tensor, ...], __: object) -> None:
        count[0] += len(given[0])

    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, given, out: (
            note(module, given, out) if type(module).__name__ == "Tiny" else None
        )
    )
    try:
        cold, first = run(tmp_path)
        once = count[0]
        warm, second = run(tmp_path)
        again = count[0] - once
        _, third = run(tmp_path, feature_cache="0")
        every = count[0] - once - again
    finally:
        hook.remove()
    # 240 samples and all test samples, filled up to batches: none twice.
    assert 240 + 359 <= once < 240 + 359 + 3 * 2 * 16 + 32
    assert again < 20  # the trial of one black image
    assert every > 3 * (240 + 359)
    measures = ("server_global", "client_local", "client_global")
    of_cold, of_warm = ([[r[m] for m in measures] for r in rs] for rs in (cold, warm))
    assert of_cold == of_warm
    one, same, other = model_of(first), model_of(second), model_of(third)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert all(np.allclose(one[name], other[name], atol=0.02) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)
