"""Replies far above the others' are cut down or refused, by name, in whole runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, RecordDict
from safetensors.numpy import load_file

from common import wire
from common.inline_grid import InlineGrid
from common.settings import Settings
from server_app.merging.bounds import NormBounds
from tests.server_app.rounds.runs import CLIENTS, run, settings_of
from tests.whole_runs import Lie, lying, rounds_of, serve


def times(factor: float, since: int = 1) -> Lie:
    def lie(content: RecordDict, server_round: int) -> None:
        arrays = content.array_records[wire.ARRAYS]
        for name in list(arrays) if server_round >= since else ():
            grown = factor * arrays[name].numpy()
            arrays[name] = Array(grown.astype(np.float32))

    return lie


IID = {"partition": "iid", "norm-bound": 4.0}


def of_liar(record: dict[str, Any]) -> dict[str, Any]:
    [found] = [c for c in record["clients"] if c["client"] == "client-0"]
    return dict(found)


def test_a_large_change_is_cut_down_and_named(tmp_path: Path) -> None:
    _, rounds = run(tmp_path, settings_of(**IID), lying(times(15.0, since=2)))
    assert of_liar(rounds[0])["cut"] == {}
    cut = of_liar(rounds[1])["cut"]
    assert "extractor" in cut and all(0.02 < f < 0.25 for f in cut.values())
    assert "client-0: cut down its change" in rounds[1]["notes"]
    assert rounds[1]["rejected"] == {}
    for each in rounds[1]["clients"]:
        assert each["client"] == "client-0" or each["cut"] == {}


def test_what_is_cut_is_merged_as_a_change_of_the_usual_size(tmp_path: Path) -> None:
    models = []
    for number, bound in enumerate((0.0, 4.0)):
        config = settings_of(**{**IID, "norm-bound": bound, "num-rounds": 2})
        folder, _ = run(tmp_path / str(number), config, lying(times(15.0, since=2)))
        models.append(load_file(folder / "model.safetensors"))
    free, bounded = ({k: np.abs(v).max() for k, v in m.items()} for m in models)
    assert max(free.values()) > 1.5 * max(bounded.values())


def test_a_change_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    _, rounds = run(tmp_path, settings_of(**IID), lying(times(1000.0, since=2)))
    assert "times the median of the last rounds" in rounds[1]["rejected"]["client-0"]
    assert not of_liar(rounds[1])["replied"]


@pytest.mark.parametrize("policy", ["repeat", "skip"])
def test_a_first_round_with_such_a_reply_is_not_merged(
    tmp_path: Path, policy: str
) -> None:
    config = settings_of(**IID, **{"short-round": policy})
    _, rounds = run(tmp_path, config, lying(times(15.0)))
    told = "nothing was known before of how far parts change, and client-0 "
    assert any(told in note for note in rounds[0]["notes"])
    first = 0 if policy == "repeat" else 1
    assert rounds[0]["merged"] is (policy == "repeat")
    assert of_liar(rounds[first])["cut"]


def test_samples_count_for_so_many_medians(tmp_path: Path) -> None:
    def hoards(content: RecordDict, _: int) -> None:
        report = content.config_records[wire.REPORT]
        held = len(report["expert-samples"])  # type: ignore[arg-type]
        report["expert-samples"] = [int(report["num-examples"])] + [0] * (held - 1)  # type: ignore[arg-type]

    # With dirichlet some clients have several times the median.
    config = settings_of(partition="dirichlet:0.3", **{"max-weight": 1.0})
    _, rounds = run(tmp_path, config, lying(hoards))
    stated = sorted(c["num_examples"] for c in rounds[0]["clients"])
    most = stated[(len(stated) - 1) // 2]
    for each in rounds[0]["clients"]:
        n = each["num_examples"]
        assert each["cut"].get("samples", 1.0) == pytest.approx(min(1.0, most / n))
    assert sum(rounds[0]["samples"]) <= most * len(stated)


def test_a_resumed_run_knows_the_medians(tmp_path: Path) -> None:
    config = settings_of(**IID, **{"num-rounds": 2})
    folder, _ = run(tmp_path, config)
    resumed = {**config, "num-rounds": 3, "resume-from": str(folder)}
    liar = lying(times(15.0, since=3))
    serve(resumed, InlineGrid(liar, CLIENTS, resumed))
    assert of_liar(rounds_of(folder)[2])["cut"]


@pytest.mark.parametrize("key", ["norm-bound", "max-weight"])
def test_a_bound_below_one_is_refused(key: str) -> None:
    with pytest.raises(Exception, match=f"{key} = 0.5.*0 for no bound, or 1 or more"):
        Settings.from_run_config({key: 0.5})
    Settings.from_run_config({key: 0.0})


def test_no_bound_by_setting() -> None:
    settings = Settings.from_run_config({"norm-bound": 0.0})
    assert NormBounds(settings.merge.norm_bound).cuts({"extractor": 1e9}) == {}
