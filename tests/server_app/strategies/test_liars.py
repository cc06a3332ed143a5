"""What a client says cannot decide, where the settings say so: whole runs, one liar."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from safetensors.numpy import load_file
from torch.nn.functional import cross_entropy

from common import wire
from common.errors import SettingsError
from common.settings import Settings
from common.shape import dataset_of, model_spec
from common.wire import TrainOrder, TrainReport
from server_app.contract import Reply
from server_app.strategies import find_strategy
from server_app.strategies.flex_moe import FlexMoE
from server_app.strategies.server_check import ServerCheck
from server_app.strategies.server_training import reserved_tensors
from tests.server_app.rounds.runs import CLIENTS, run, settings_of
from tests.whole_runs import lying

SERVER = {"fitness-from": "server", "reserved-samples": 60}


def boasting(content: RecordDict, _: int) -> None:
    report: Any = content.config_records[wire.REPORT]
    held = len(report["expert-samples"])
    report["expert-accuracy"] = [1.0] + [0.0] * (held - 1)
    report["expert-loss"] = [0.0] * held


def held(rounds: list[dict[str, Any]]) -> list[list[list[int]]]:
    return [[client["experts"] for client in each["clients"]] for each in rounds]


CHOSEN_BY: dict[str, tuple[dict[str, Any], bool]] = {
    "fitness": ({}, False),
    "chance": ({"expert-choice": "chance"}, True),
    "robust merging": ({"merging": "median"}, True),
    "the server": (SERVER, True),
}


@pytest.mark.parametrize("name", CHOSEN_BY)
def test_a_boast_decides_who_holds_what_only_by_fitness(
    tmp_path: Path, name: str
) -> None:
    more, alike = CHOSEN_BY[name]
    config = settings_of(**{"num-rounds": 5, "load-tolerance": 0.5}, **more)
    _, honest = run(tmp_path / "honest", config)
    _, lied = run(tmp_path / "lied", config, lying(boasting))
    assert (held(honest) == held(lied)) is alike


def settings(**more: Any) -> Settings:
    return Settings.from_run_config(settings_of(**SERVER, **more))


def test_the_server_measures_the_model_that_a_client_made() -> None:
    """Against the model put together by hand: extractor and one expert."""
    chosen = settings()
    spec = model_spec(chosen, dataset_of(chosen))
    strategy = FlexMoE(chosen, spec)
    rng = np.random.default_rng(0)
    parts = ("extractor", "expert.1", "expert.3")
    deltas = {
        part: rng.normal(0, 0.1, strategy.model[part].size).astype(np.float32)
        for part in parts
    }
    order = TrainOrder(server_round=1, run="x", experts=[1, 3], num_experts=4, top_k=1)
    report = TrainReport(
        server_round=1,
        client="a",
        code_hash="0" * 16,
        num_examples=2,
        expert_samples=[1, 1],
        expert_accuracy=[0.0, 0.0],
        expert_loss=[0.0, 0.0],
    )
    reply = Reply(client=0, order=order, report=report, deltas=deltas)
    accuracy, loss = ServerCheck(chosen, strategy.spec, "x")(strategy.model, reply)
    x, y = reserved_tensors(chosen)
    assert len(y) == 60
    for k, expert in enumerate((1, 3)):
        model = strategy.spec.build([expert])
        changed = {
            part: strategy.model[part] + deltas[part]
            for part in ("extractor", f"expert.{expert}")
        }
        model.load(changed)
        with torch.inference_mode():
            logits = model.moe.experts[str(expert)](model.eval().seen(x))
        right = float((logits.argmax(1) == y).double().mean())
        assert accuracy[k] == pytest.approx(right)
        assert loss[k] == pytest.approx(float(cross_entropy(logits, y)), rel=1e-5)


def test_without_samples_the_server_cannot_measure() -> None:
    with pytest.raises(SettingsError, match="reserved-samples = 0 is not allowed"):
        chosen = Settings.from_run_config(settings_of(**{"fitness-from": "server"}))
        FlexMoE(chosen, model_spec(chosen, dataset_of(chosen)))


@pytest.mark.parametrize("merging", ["mean", "median"])
def test_an_expert_has_enough_holders_or_none(tmp_path: Path, merging: str) -> None:
    config = settings_of(**{"min-holders": 4, "merging": merging, "num-rounds": 4})
    _, rounds = run(tmp_path, config)
    loads = np.array([each["load"] for each in rounds])
    # Six clients with two places: three of four experts are open.
    assert ((loads == 0) | (loads >= 4)).all()
    assert (loads.sum(axis=1) == 2 * CLIENTS).all()
    assert (loads > 0).any(axis=0).all()
    told = "merging = median withstands 2 bad replies of 6 in parts that all hold; 1 in"
    for each in rounds:
        assert any(note.startswith(told) for note in each["notes"]) is (
            merging == "median"
        )


def test_an_expert_that_lost_its_holders_is_not_merged(tmp_path: Path) -> None:
    """Placed at random, some of eight experts have one holder."""
    folders = []
    for least in (1, 2):
        config = settings_of(
            strategy="random",
            **{"num-rounds": 1, "min-holders": least, "num-experts": 8},
        )
        folder, [line] = run(tmp_path / str(least), config)
        folders.append(load_file(folder / "model.safetensors"))
    [note] = [note for note in line["notes"] if "lack of holders" in note]
    few = [int(word) for word in note.split("experts ")[1].split(", ")]
    assert few
    for name, merged in folders[0].items():
        part, _, number = name.partition(".")
        expert = int(number.split(".")[0]) if part == "expert" else None
        same = np.array_equal(merged, folders[1][name])
        assert same is (expert not in few)


@pytest.mark.parametrize("strategy", ["fed-moe", "flwr:FedAdam"])
def test_what_merges_whole_models_cannot_count_holders(strategy: str) -> None:
    chosen = Settings.from_run_config(
        settings_of(strategy=strategy, **{"min-holders": 2, "reserved-samples": 60})
    )
    with pytest.raises(SettingsError, match="min-holders = 2 is not allowed with"):
        find_strategy(strategy)(chosen, model_spec(chosen, dataset_of(chosen)))
