"""The ServerApp: settings to strategy to loop to run folder, nothing else."""

import logging
import time
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.flower_internals import is_in_memory_grid
from common.settings import Settings
from common.shape import model_spec, server_task
from common.trial import check_samples
from server_app.callbacks.runlog import RunLog
from server_app.fleet.same_data import unchanged
from server_app.rounds.evaluation import server_evaluation
from server_app.rounds.loop import RoundLoop
from server_app.run_config import check_fleet
from server_app.run_folder.base_file import keep_base, with_base
from server_app.run_folder.places import own_places
from server_app.run_folder.unbegun import check_place
from server_app.strategies import find_strategy

logger = logging.getLogger("flwr.expertfleet")

START_SECONDS = 10.0
"""How long the clients of a simulation are waited for."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the strategy the run-config names and keep what it produced."""
    settings = Settings.from_run_config(context.run_config)
    if is_in_memory_grid(grid):
        settings = own_places(settings)
        check_fleet(settings, _simulated(grid))
    train(grid, settings, str(context.run_id))


def _simulated(grid: Grid) -> int:
    """Return how many clients Flower simulates; it makes them while this begins."""
    before, deadline = -1, time.monotonic() + START_SECONDS
    while (found := len(list(grid.get_node_ids()))) != before or not found:
        if time.monotonic() > deadline:
            break
        before = found
        time.sleep(0.1)
    return found


def train(grid: Grid, settings: Settings, flower_run: str = "") -> Path:
    """Run to the end; return the directory of the run.

    Parameters
    ----------
    flower_run : str
        Flower's number of the run; "" where Flower does not start it.
    """
    check_place(settings)
    # One thread gives the same sums in every process, hence the same bits.
    torch.set_num_threads(settings.training.threads)
    spec = model_spec(settings, server_task(settings))
    check_samples(spec)
    spec = with_base(spec, settings)
    strategy = find_strategy(settings.run.strategy)(settings, spec)
    loop = RoundLoop(strategy)
    with RunLog(settings) as log:
        folder = log.run
        data = unchanged(settings, folder.facts)
        base = keep_base(folder.path, spec, settings, folder.facts)
        loop.attach(folder, log)
        folder.write_facts(**data, **base, flower_run=flower_run)
        loop.run(
            grid,
            settings.rounds.num_rounds,
            settings.rounds.patience,
            server_evaluation(
                strategy,
                loop.fleet.agreement,
                log.learned,
                lambda: loop.fleet.clients,
            ),
        )
        if not strategy.no_predictor:
            folder.save_model(strategy.published(), strategy.layout)
    logger.getChild("table").info("results: %s", folder.path)
    return folder.path
