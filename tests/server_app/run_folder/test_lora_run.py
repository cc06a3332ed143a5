"""Runs of low-rank updates over the real apps: they learn, go on bit for bit, serve."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import SettingsError
from server_app.run_source import RunSource
from tests.server_app.run_folder.test_base_file import config_of, run
from tests.whole_runs import rounds_of


def lora(folder: Path, kind: str, **changes: Any) -> dict[str, Any]:
    fields = {"expert": "lora", "expert_hidden": 2, "lora_alpha": 4.0, "lr": 0.2}
    return config_of(folder, kind, **{**fields, **changes})


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_it_learns_goes_on_and_serves(kind: str, tmp_path: Path) -> None:
    config = lora(tmp_path, kind, num_rounds=4, local_epochs=4)
    # Devices keep their gates, each run's for itself.
    whole = run(config | {"state-dir": str(tmp_path / "whole")})
    accuracies = [record["server_global"] for record in rounds_of(whole)]
    assert accuracies[-1] > 0.9, accuracies  # half of the texts are of either class
    config |= {key: str(tmp_path / key) for key in ("state-dir", "output-dir")}
    begun = run(config | {"num-rounds": 2})
    assert run(config | {"resume-from": str(begun)}) == begun
    name = "model.safetensors"
    assert (begun / name).read_bytes() == (whole / name).read_bytes()
    served = RunSource(whole).load()
    x = served.encode(["very bad", "the plot a good"])
    answer = served.predict(x)
    assert answer.classes.tolist() == [0, 1]


# Those that do something of their own with experts or their parts.
@pytest.mark.parametrize("strategy", ["kin", "fed-moe", "fedmix", "fedjets", "fedper"])
def test_strategies_that_treat_experts_their_own_way(
    strategy: str, tmp_path: Path
) -> None:
    changes = {"strategy": strategy, "reserved_samples": 12, "num_rounds": 2}
    place = run(lora(tmp_path, "bert", **changes))
    last = rounds_of(place)[-1]
    assert last["round"] == 2 and not last["rejected"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"lora-targets": "querry"},
            "'querry' is no linear layer of a bert",
        ),
        (
            {"expert": "mlp", "lora-targets": "query"},
            "not allowed with expert = 'mlp', which acts on features",
        ),
        (
            {"backbone": "text-transformer", "pretrained": "", "moe-layers": "1"},
            "expert = 'lora' is not allowed with backbone = 'text-transformer': it "
            "acts on linear layers of a frozen encoder",
        ),
        ({"expert": "conv"}, "expert = 'conv' is not allowed .* it acts on maps"),
    ],
)
def test_where_experts_cannot_act(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=said):
        run(lora(tmp_path, "bert") | changes)
