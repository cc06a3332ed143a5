"""How many of the server's modules one ordinary round passes through."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.callbacks.runlog import RunLog
from server_app.rounds.loop import RoundLoop
from server_app.run_folder.folder import RunFolder
from server_app.strategies.flex_moe import FlexMoE

SERVER = Path(__file__).resolve().parents[3] / "server_app"


def test_a_round_passes_few_modules_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: dict[str, Any] = {
        "num-rounds": 2,
        "num-experts": 4,
        "local-epochs": 1,
        "output-dir": str(tmp_path),
    }
    settings = Settings.from_run_config(config)
    strategy = FlexMoE(settings, model_spec(settings, dataset_of(settings)))
    passed: set[str] = set()

    def watch(frame: FrameType, event: str, arg: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(SERVER):
            passed.add(path.relative_to(SERVER).with_suffix("").as_posix())

    plan, keep = FlexMoE.plan, RunFolder.keep

    def begin(self: FlexMoE, view: Any) -> Any:
        if view.server_round == 2:  # the first also builds what all rounds use
            sys.setprofile(watch)
        return plan(self, view)

    def end(self: RunFolder, *given: Any) -> None:
        keep(self, *given)
        sys.setprofile(None)

    monkeypatch.setattr(FlexMoE, "plan", begin)
    monkeypatch.setattr(RunFolder, "keep", end)
    try:
        with RunLog(settings) as log:
            loop = RoundLoop(strategy)
            loop.attach(log.run, log)
            loop.run(InlineGrid(client_app, 6, config), 2, 60.0, None)
    finally:
        sys.setprofile(None)
    of_the_loop = {name for name in passed if name.startswith("rounds/")}
    assert of_the_loop == {
        f"rounds/{name}"
        for name in (
            "loop",
            "train_exchange",
            "planning",
            "orders",
            "round",
            "intake",
            "outcome",
            "measure_exchange",
            "record",
            "client_round",
            "best",
        )
    }
    assert not any(name.startswith("callbacks/") for name in passed)
    outside_the_solver = {name for name in passed if not name.startswith("assignment/")}
    assert len(outside_the_solver) <= 32, " ".join(sorted(outside_the_solver))
