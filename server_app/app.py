"""The ServerApp: settings to strategy to run, nothing else."""

import logging

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import Settings
from common.inputs import Inputs
from common.shape import dataset_of, model_spec
from server_app.evaluation import ServerEvaluation
from server_app.frozen import keep_base, with_base
from server_app.runlog import RunLog
from server_app.strategies import find_strategy

logger = logging.getLogger("flwr.expertfleet")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the strategy the run-config names and keep what it produced."""
    settings = Settings.from_run_config(context.run_config)
    # One thread gives the same sums in every process, hence the same bits.
    torch.set_num_threads(settings.training.threads)
    dataset = dataset_of(settings)
    spec = with_base(model_spec(settings, dataset), settings)
    strategy = find_strategy(settings.run.strategy)(settings, spec)
    log = RunLog(settings)
    base = keep_base(log.folder, spec, settings, log.facts)
    strategy.rounds.attach(log)
    log.write_facts(inputs=Inputs.of(dataset).facts(), **base)
    try:
        strategy.start(
            grid,
            num_rounds=settings.rounds.num_rounds,
            timeout=settings.rounds.round_deadline,
            evaluate_fn=ServerEvaluation(strategy, dataset, settings, log.learned),
        )
        log.save_model(strategy.published(), strategy.layout)
    finally:
        log.close()
    logger.info("results: %s", log.folder)
