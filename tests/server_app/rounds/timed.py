"""Runs in simulated time: devices that are slow, away, or lose what they have."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.clientapp import ClientApp

from benchmarks.timed_grid import SimulatedClock, TimedGrid
from client_app.app import app as client_app
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.callbacks.runlog import RunLog
from server_app.rounds.loop import RoundLoop
from server_app.strategies import find_strategy

DEADLINE = 10.0


class TimedRun:
    """A run whose devices take as long as it is said: by client, its messages in turn.

    Attributes
    ----------
    asked : list of (int, int)
        Client and round of every order, as they were sent.
    """

    grid_class = TimedGrid

    def __init__(
        self,
        folder: Path,
        seconds: Mapping[int, list[float]],
        *,
        clients: int = 3,
        app: ClientApp = client_app,
        **changes: Any,
    ) -> None:
        self.config: dict[str, Any] = {
            "num-rounds": 4,
            "num-experts": 2,
            "expert-capacity": 1,
            "local-epochs": 1,
            "test-samples": 20,
            "round-deadline": DEADLINE,
            "late-replies": "merge",
            "output-dir": str(folder),
        }
        for key, value in changes.items():
            self.config[key.replace("_", "-")] = value
        self.asked: list[tuple[int, int]] = []
        self.clock = SimulatedClock()
        turns = {client: iter(each) for client, each in seconds.items()}

        def takes(message: Message) -> float:
            client = message.metadata.dst_node_id - 1
            self.asked.append((client, int(message.metadata.group_id)))
            return next(turns.get(client, iter(())), 1.0)

        self.grid = self.grid_class(
            app, clients, self.config, clock=self.clock, seconds=takes
        )

    def __call__(self, watch: Callable[[RoundLoop], None] = lambda _: None) -> Path:
        """Run to the end; return its folder."""
        settings = Settings.from_run_config(self.config)
        spec = model_spec(settings, dataset_of(settings))
        strategy = find_strategy(settings.run.strategy)(settings, spec)
        self.loop = loop = RoundLoop(strategy, self.clock)
        watch(loop)
        with RunLog(settings) as log:
            loop.attach(log.run, log)
            rounds = settings.rounds
            loop.run(self.grid, rounds.num_rounds, rounds.round_deadline, None)
            log.run.save_model(strategy.published(), strategy.layout)
            return log.run.path


def merged_of(line: Mapping[str, Any]) -> dict[str, int]:
    """Return whose replies a round merged, and of which round their orders were."""
    return {c["client"]: c["order_round"] for c in line["clients"] if c["replied"]}
