"""Time to accuracy where devices are slow: four schedules, in simulated seconds.

Twenty devices of speeds 1:10 on digits, each behind a link and away for a fifth of the
time (:mod:`benchmarks.timed_grid`), train under the same seed with

- *synchronous*: a round waits for everybody it asked;
- *drop*: a round ends after ``--deadline`` seconds, and later replies are dropped;
- *merge*: the same, and later replies are merged into the round under way;
- *buffered*: parts move when enough of their holders have replied.

All get the time that the synchronous run takes for ``--rounds`` rounds. What is told is
when each reaches the target: what the synchronous run has at its end, less
``SLACK``, both as means of the last ``WINDOW`` measurements in time. Devices, links and
absences are the same for all four.

``python -m benchmarks.stragglers``
"""

import argparse
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray

from benchmarks.timed_grid import SimulatedClock, TimedGrid
from client_app.app import app as client_app
from common import wire
from common.seeding import stream
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.rounds.evaluation import server_evaluation
from server_app.rounds.loop import NOTHING, RoundLoop
from server_app.rounds.measure_exchange import Measured
from server_app.rounds.record import RoundRecord
from server_app.strategies import find_strategy

CLIENTS = 20
FASTEST, SLOWEST = 10.0, 100.0
"""Seconds a device trains in a round; in between evenly on a logarithmic scale."""
JITTER = 0.1
"""Deviation of the logarithm of one training's seconds."""
DOWN, UP = 125_000.0, 32_000.0
"""Bytes a second, 1 Mbit/s and 256 kbit/s."""
ONLINE, OFFLINE = 240.0, 60.0
"""Mean seconds of being there and of being away: a fifth of the time."""
SLACK = 0.005
WINDOW = 300.0
"""Simulated seconds whose measurements are taken together."""

SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    "synchronous": {"round-deadline": 1e6},
    "drop": {"late-replies": "drop"},
    "merge": {"late-replies": "merge"},
    "buffered": {"schedule": "buffered", "round-deadline": 1e6, "max-staleness": 100},
}


class DoneError(Exception):
    """The time is up."""


class Devices:
    """How fast each device is, and when it is there.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        spread = np.linspace(np.log(FASTEST), np.log(SLOWEST), CLIENTS)
        self._seconds = np.exp(stream(seed, "speeds").permutation(spread))
        self._turns = [0] * CLIENTS
        self._changes: list[NDArray[np.float64]] = []
        for client in range(CLIENTS):
            rng = stream(seed, "absences", client)
            first = rng.random() < ONLINE / (ONLINE + OFFLINE)
            means = [ONLINE, OFFLINE] if first else [OFFLINE, ONLINE]
            lengths = rng.exponential(np.tile(means, 5000))
            begins = np.concatenate([[0.0], np.cumsum(lengths)])
            # Even entries begin a time of being there.
            self._changes.append(begins if first else np.insert(begins, 0, -1.0))

    def seconds(self, message: Message) -> float:
        """Return how long after an order its device has its reply on the server."""
        client, size = message.metadata.dst_node_id - 1, wire.message_bytes(message)
        self._turns[client] += 1
        rng = stream(self._seed, "jitter", client, self._turns[client])
        work = self._seconds[client] * np.exp(JITTER * rng.standard_normal())
        return float(size / DOWN + work + size / UP)

    def back(self, node: int, now: float) -> float:
        """Return when a device is there from then on."""
        changes = self._changes[node - 1]
        turn = int(np.searchsorted(changes, now, side="right")) - 1
        return now if turn % 2 == 0 else float(changes[turn + 1])


@dataclass
class Course:
    """What one run did.

    Attributes
    ----------
    measured : list of (float, float)
        Time and accuracy of every round.
    replies, rounds : int
    megabytes : float
        Both ways.
    imbalance : float
        CV of the cumulated loads.
    staleness : list of int
        Rounds between each merged reply and its order.
    planning : list of float
        Seconds of the solver for each round.
    """

    measured: list[tuple[float, float]] = field(default_factory=list)
    replies: int = 0
    rounds: int = 0
    megabytes: float = 0.0
    imbalance: float = float("nan")
    staleness: list[int] = field(default_factory=list)
    planning: list[float] = field(default_factory=list)

    def smoothed(self) -> list[tuple[float, float]]:
        """Return times, and the mean of what was measured in ``WINDOW`` before each."""
        return [
            (now, fmean(a for at, a in self.measured if now - WINDOW < at <= now))
            for now, _ in self.measured
        ]

    def reaches(self, target: float) -> float | None:
        """Return when the smoothed accuracy first is the target; None for never."""
        return next((at for at, a in self.smoothed() if a >= target), None)


def run(
    schedule: str, seed: int, *, rounds: int, deadline: float, budget: float | None
) -> Course:
    """Train under one schedule, for so many rounds or seconds."""
    config: dict[str, Any] = {
        "num-rounds": rounds if budget is None else 100_000,
        "seed": seed,
        "round-deadline": deadline,
        **SCHEDULES[schedule],
    }
    settings = Settings.from_run_config(config)
    clock, devices, course = SimulatedClock(), Devices(seed), Course()
    grid = TimedGrid(
        client_app,
        CLIENTS,
        config,
        clock=clock,
        seconds=devices.seconds,
        back=devices.back,
    )
    strategy = find_strategy(settings.run.strategy)(
        settings, model_spec(settings, dataset_of(settings))
    )
    loop = RoundLoop(strategy, clock)
    measure = server_evaluation(
        strategy, loop.fleet.agreement, lambda _: None, lambda: loop.fleet.clients
    )
    assert measure is not None

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        found = measure(server_round, arrays)
        assert found is not None
        accuracy = found["server_global"]
        assert isinstance(accuracy, float)
        course.measured.append((clock.now, accuracy))
        return found

    close = loop.close

    def closing(measured: Measured = NOTHING) -> RoundRecord:
        record = close(measured)
        merged = [client for client in record.clients if client.replied]
        course.rounds, course.replies = record.round, course.replies + len(merged)
        course.staleness += [record.round - c.order_round for c in merged]
        course.megabytes += (record.bytes_down + record.bytes_up) / 1e6
        course.imbalance = record.cv_cumulative or 0.0
        if record.solver is not None:
            course.planning.append(record.solver["seconds"])
        if budget is not None and clock.now > budget:
            raise DoneError
        return record

    loop.close = closing  # type: ignore[method-assign]
    with suppress(DoneError):
        loop.run(grid, settings.rounds.num_rounds, settings.rounds.patience, evaluate)
    return course


def main() -> None:
    """Print a table, each row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--deadline", type=float, default=40.0)
    parser.add_argument("--curves", type=Path, help="JSON file of what was measured")
    given = parser.parse_args()
    curves: dict[str, list[tuple[float, float]]] = {}
    print(
        f"{'schedule':<12} {'seed':>4} {'target':>7} {'at s':>7} {'ratio':>6} "
        f"{'last':>7} {'rounds':>6} {'replies':>7} {'stale':>6} {'MB':>6} {'CV':>6} "
        f"{'plan ms':>8}",
        flush=True,
    )
    for seed in given.seeds:
        budget, target, usual = None, 0.0, 0.0
        for schedule in SCHEDULES:
            course = run(
                schedule,
                seed,
                rounds=given.rounds,
                deadline=given.deadline,
                budget=budget,
            )
            end, last = course.smoothed()[-1]
            if budget is None:
                budget, target = end, last - SLACK
                usual = course.reaches(target) or end
            at = course.reaches(target)
            curves[f"{schedule} {seed}"] = course.measured
            print(
                f"{schedule:<12} {seed:>4} {target:>7.4f} "
                f"{'never' if at is None else f'{at:.0f}':>7} "
                f"{'-' if at is None else f'{at / usual:.2f}':>6} {last:>7.4f} "
                f"{course.rounds:>6} {course.replies:>7} "
                f"{fmean(course.staleness):>6.2f} {course.megabytes:>6.0f} "
                f"{course.imbalance:>6.3f} {1e3 * fmean(course.planning):>8.2f}",
                flush=True,
            )
            if given.curves:
                given.curves.write_text(json.dumps(curves))


if __name__ == "__main__":
    main()
