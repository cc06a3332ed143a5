"""Runs that differ in nothing but the seed, as one: means with their intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.metrics import mean_interval
from server_app.report.numbers import with_half
from server_app.report.run_data import RunData
from server_app.report.svg import Series

ASIDE = frozenset({"seed", "output-dir", "state-dir", "resume-from"})
"""Settings of which a comparison says nothing: the seed, and where things are."""
MOST_NAMED = 3
"""Settings that name a group; where more differ, a run's name does."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of the same settings.

    Attributes
    ----------
    name : str
        What is unlike the other groups.
    runs : list of RunData
        By seed, at least one.
    """

    name: str
    runs: list[RunData]

    @property
    def seeds(self) -> str:
        """The seeds, as ``0, 1, 2``."""
        return ", ".join(str(run.settings.get("seed", "–")) for run in self.runs)

    @property
    def lengths(self) -> str:
        """How many rounds the runs have, as ``30`` or ``12-30``."""
        counts = sorted({run.numbers[-1] for run in self.runs})
        return "-".join(map(str, dict.fromkeys([counts[0], counts[-1]])))

    def series(
        self, key: str, across: Callable[[RunData], Sequence[float]] | None = None
    ) -> Series:
        """Return the mean of a column over the rounds in which all runs have it.

        Parameters
        ----------
        key : str
        across : callable, optional
            Returns what a run's rounds are drawn over: their numbers by default.
        """
        columns = [
            dict(zip(run.numbers, run.column(key), strict=True)) for run in self.runs
        ]
        places = [
            dict(zip(run.numbers, across(run) if across else run.numbers, strict=True))
            for run in self.runs
        ]
        x, y, half = [], [], []
        for number in columns[0]:
            values = [column.get(number, math.nan) for column in columns]
            if all(map(math.isfinite, values)):
                mean, width = mean_interval(values)
                x.append(mean_interval([place[number] for place in places])[0])
                y.append(mean)
                half.append(math.nan if width is None else width)
        return Series(name=self.name, x=x, y=y, half=half)

    def over_runs(self, values: Callable[[RunData], Sequence[float]]) -> list[str]:
        """Return, for each number a run has, its mean over runs and the interval."""
        found = zip(*(values(run) for run in self.runs), strict=True)
        return [_over(column) for column in found]


def _over(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return with_half(*mean_interval(known)) if known else "–"


def grouped(runs: Sequence[RunData]) -> list[Group]:
    """Return runs by their settings, in the order of the first of each."""
    found: dict[str, list[RunData]] = {}
    for run in runs:
        found.setdefault(repr(sorted(_compared(run).items())), []).append(run)
    groups = [sorted(each, key=_seed) for each in found.values()]
    names = _names([each[0] for each in groups])
    pairs = zip(names, groups, strict=True)
    return [Group(name=name, runs=each) for name, each in pairs]


def differing(runs: Sequence[RunData]) -> list[str]:
    """Return the settings in which runs differ, the seed and places left aside."""
    keys = sorted({key for run in runs for key in _compared(run)})
    return [key for key in keys if len({str(r.settings.get(key)) for r in runs}) > 1]


def _compared(run: RunData) -> Mapping[str, Any]:
    return {k: str(v) for k, v in run.settings.items() if k not in ASIDE}


def _seed(run: RunData) -> tuple[float, str]:
    seed = run.settings.get("seed")
    return float(seed) if isinstance(seed, int) else math.inf, run.name


def _names(runs: Sequence[RunData]) -> list[str]:
    """Return what tells runs apart, else their names; they are all unlike."""
    keys = differing(runs)
    if len(runs) == 1 or len(keys) > MOST_NAMED:
        keys = ["strategy"]
    keys = sorted(keys, key=lambda key: key != "strategy")
    names = [
        ", ".join(
            str(run.settings.get(key, "–"))
            if key == "strategy"
            else f"{key}={run.settings.get(key, '–')}"
            for key in keys
        )
        for run in runs
    ]
    return names if len(set(names)) == len(names) else [run.name for run in runs]
