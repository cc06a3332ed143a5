"""Runs of the real ServerApp and ClientApp on digits in this process."""

import json
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.app import app as server_app
from server_app.strategies.base import ExpertStrategy
from server_app.strategies.flex_moe import FlexMoE

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
    context = Context(
        run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config
    )
    before = set(tmp_path.iterdir())
    server_app(grid=grid(app, CLIENTS, config), context=context)
    [folder] = set(tmp_path.iterdir()) - before
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return folder, [json.loads(line) for line in lines]
