"""What a run takes of a device, by the product's own cost model: nothing is timed.

It is what the server plans with (``common/cost.py``), for a client with a mean share of
the samples and the largest budget that the settings allow.

``python -m benchmarks.study.costs --data-dir DIR`` prints the costs of all strategies
of the preset ``shift``, with the bytes of one round, counted from its messages.
"""

import argparse
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from benchmarks.study.cells import Cell
from benchmarks.study.presets import shift
from benchmarks.study.variants import BASELINE


def with_costs(
    cells: Iterable[Cell], lines: Mapping[str, Mapping[str, Any]], data_dir: str
) -> dict[str, dict[str, Any]]:
    """Return lines by key, each of those of the cells with its two costs."""
    costs = {cell.key: costs_of(cell, data_dir) for cell in cells if cell.key in lines}
    return {key: {**line, **costs.get(key, {})} for key, line in lines.items()}


def costs_of(cell: Cell, data_dir: str) -> dict[str, float]:
    """Return memory and work of one client in a round.

    Returns
    -------
    device_MB : float
        Megabytes that training takes beyond the process and what torch allocates of its
        own; without evaluation, which is the same for all.
    GFLOP : float
        10^9 operations of training, and of choosing what to train.
    """
    # Neither seed nor partition changes them.
    settings = {k: v for k, v in cell.config.items() if k != "eval-every"}
    return _costs(
        tuple(sorted({**settings, "dataset": cell.dataset}.items())),
        cell.clients,
        data_dir,
    )


@cache
def _costs(
    config: tuple[tuple[str, Any], ...], clients: int, data_dir: str
) -> dict[str, float]:
    # Late: they bring torch, which a study that only draws does not need.
    from common.cost import RUNTIME, training_copies, training_memory, training_work
    from common.settings import Settings
    from common.shape import dataset_of, model_spec
    from server_app.run_folder.base_file import with_base
    from server_app.strategies import find_strategy

    settings = Settings.from_run_config({**dict(config), "data-dir": data_dir})
    dataset = dataset_of(settings)
    spec = with_base(model_spec(settings, dataset), settings)
    strategy = find_strategy(settings.run.strategy)(settings, spec)
    held = min(settings.rounds.expert_capacity.largest, strategy.max_budget)
    samples = (settings.data.train_samples or len(dataset.y_train)) // clients
    memory = training_memory(
        strategy.spec,
        batch=settings.training.batch_size,
        train_samples=samples,
        test_samples=0,
        more_copies=training_copies(settings.training, strategy.method),
        candidates=strategy.method.candidates,
    )
    passes = strategy.method.passes(settings.training.local_epochs)
    work = training_work(strategy.spec)[held - 1] * passes * samples
    return {
        "device_MB": float(memory[held - 1] - RUNTIME) / 1e6,
        "GFLOP": float(work) / 1e9,
    }


def main() -> None:
    """Print what every strategy takes of a client in a round."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study.costs")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--dataset", default="emnist")
    args = parser.parse_args()
    cells = {
        cell.label: cell
        for cell in shift()
        if cell.dataset == args.dataset and cell.table == "skew" and cell.seed == 0
    }
    dense = costs_of(cells[BASELINE], args.data_dir)
    print("| strategy | kB down | kB up | memory, MB | of dense | GFLOP | of dense |")
    print("|---" * 7 + "|")
    for label, cell in cells.items():
        down, up = (nbytes / 1e3 for nbytes in _bytes(cell, args.data_dir))
        texts = [f"{down:.1f}", f"{up:.1f}"]
        for name, value in costs_of(cell, args.data_dir).items():
            texts += [f"{value:.3g}", f"{value / dense[name]:.2f}"]
        print(f"| {label} | {' | '.join(texts)} |", flush=True)


def _bytes(cell: Cell, data_dir: str) -> tuple[float, float]:
    """Return the bytes to and from a client in a round, the mean of all clients."""
    from benchmarks.study.one_cell import records

    first: dict[str, Any] = {"num-rounds": 1, "test-samples": 1}
    if cell.config["strategy"] == "ifca":  # the warm-up has one model
        first["strategy-options"] = "warmup=0"
    once = replace(cell, config={**cell.config, **first})
    with tempfile.TemporaryDirectory() as folder:
        [record] = records(once, data_dir, folder)
    return record["bytes_down"] / cell.clients, record["bytes_up"] / cell.clients


if __name__ == "__main__":
    main()
