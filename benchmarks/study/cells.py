"""One run of a study and what is kept of it; nothing here runs anything."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Scalar = str | int | float | bool

ACCURACIES = ("server_global", "client_global", "client_local")
MEASURES = (*ACCURACIES, "worst_tenth", "cv_cumulative", "MB", "seconds")
DIFFERING = ("worst_group", "served")
"""Measured where devices differ in what they see or what they call it."""
COSTS = ("device_MB", "GFLOP")
"""What training takes of a device in a round (:mod:`benchmarks.study.costs`)."""
LAYER_CV = "cv_layer_"
"""Before the number of a mixture layer; measured where a model has several."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run.

    Attributes
    ----------
    table : str
        Which table it belongs to.
    dataset, partition : str
    label : str
        Its row in the table, a strategy or a variant of one.
    config : mapping of str to scalar
        Every setting that differs from the project's defaults, the above included.
    seed, clients : int
    """

    table: str
    dataset: str
    partition: str
    label: str
    seed: int
    clients: int
    config: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def run_config(self) -> dict[str, Scalar]:
        """The run's settings that are not the project's defaults."""
        return {
            **self.config,
            "dataset": self.dataset,
            "partition": self.partition,
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        """What makes two runs the same, whatever table they are in."""
        return json.dumps([self.clients, self.run_config], sort_keys=True)


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is kept of a run's ``metrics.jsonl``.

    Accuracies are the mean of the last two evaluations: between rounds they swing by
    several points where clients are unlike each other.
    """
    evaluated = [
        r for r in rounds if any(r.get(name) is not None for name in ACCURACIES)
    ]
    last = evaluated[-2:]
    total = 0.0
    curve = []
    for record in rounds:
        total += (record["bytes_down"] + record["bytes_up"]) / 1e6
        if record in evaluated:
            curve.append([record["round"], total, *(record[a] for a in ACCURACIES)])
    return {
        **{name: _mean(r.get(name) for r in last) for name in ACCURACIES},
        "worst_tenth": _mean(_worst_tenth(r["clients"]) for r in last),
        **{k: _mean(r[k] for r in last) for k in DIFFERING if k in rounds[-1]},
        "cv_cumulative": rounds[-1]["cv_cumulative"],
        **{key: rounds[-1][key] for key in rounds[-1] if key.startswith(LAYER_CV)},
        "MB": total,
        "seconds": sum(r["seconds"] for r in rounds),
        "rounds": len(rounds),
        "curve": curve,
    }


def measures(lines: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what was measured of runs: ``MEASURES``, and what only some runs have."""
    some = (*DIFFERING, *COSTS)
    more = dict.fromkeys(
        k for line in lines for k in line if k in some or k.startswith(LAYER_CV)
    )
    return (*MEASURES, *more)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _worst_tenth(clients: Sequence[Mapping[str, Any]]) -> float | None:
    local = [c["client_local"] for c in clients if c["client_local"] is not None]
    return _mean(sorted(local)[: max(1, len(local) // 10)])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return what an earlier, perhaps interrupted, study left; the last line counts."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:  # cut off when the machine stopped
            continue
    return lines
