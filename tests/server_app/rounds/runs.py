"""Runs of the real ServerApp and ClientApp on digits in this process."""

from pathlib import Path
from typing import Any

from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.strategies.base import ExpertStrategy
from server_app.strategies.flex_moe import FlexMoE
from tests.whole_runs import rounds_of, serve

CLIENTS = 6


def settings_of(**changes: Any) -> dict[str, Any]:
    return {"num-rounds": 3, "num-experts": 4, "local-epochs": 1, **changes}


def strategy_of(config: dict[str, Any]) -> ExpertStrategy:
    settings = Settings.from_run_config(config)
    return FlexMoE(settings, model_spec(settings, dataset_of(settings)))


def run(
    tmp_path: Path,
    config: dict[str, Any],
    app: ClientApp = client_app,
    grid: type[InlineGrid] = InlineGrid,
) -> tuple[Path, list[dict[str, Any]]]:
    tmp_path.mkdir(exist_ok=True)
    config = {**config, "output-dir": str(tmp_path)}
    before = set(tmp_path.iterdir())
    serve(config, grid(app, CLIENTS, config))
    [folder] = set(tmp_path.iterdir()) - before
    return folder, rounds_of(folder)
