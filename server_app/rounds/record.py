"""What is remembered of one round: the line of ``metrics.jsonl`` and of the table.

What each client did in it is in ``client_round``.
"""

import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
from flwr.app import MetricRecord
from numpy.typing import NDArray

from common.class_counts import MOST_SQUARE
from common.metrics import coefficient_of_variation, weighted_mean, worst_tenth
from server_app.rounds.client_round import ClientRound

ACCURACIES = (
    "server_global",
    "fleet",
    "balanced",
    "client_global",
    "worst_group",
    "served",
    "client_local",
    "client_local_weighted",
    "client_local_worst",
    "local_balanced",
)
"""Shares of samples that were answered rightly."""
MEASURES = (
    *ACCURACIES,
    "train_loss",
    "epsilon",
    "cv_round",
    "cv_cumulative",
    "cv_samples",
    "dead_share",
    "bytes_down",
    "bytes_up",
    "seconds",
)
"""What is a number of every round, where it is measured."""
WIDTH = 80
"""Columns of the table of rounds."""
_LEFT_OUT = ("CV", "dead", "balanced", "served")
"""Columns that are left out, this one first, where there is no room for all."""
OWN = "metrics."
"""Before the name of what clients measured of their own; a round has its mean."""


@dataclass(kw_only=True)
class RoundRecord:
    """One line of ``metrics.jsonl``.

    ``cv_round`` and ``cv_cumulative`` are of assignment counts (clients that held an
    expert and replied), in this round and summed over all; ``cv_samples`` is of the
    samples routed in this round. ``dead_share`` is the share of placements (an expert
    held by a client that replied) that got none of them. ``cv_layers`` is
    ``cv_cumulative`` within each mixture layer, written as ``cv_layer_1``, ... where
    there are several. They are None where nobody held anything: that is no balance.
    Accuracies are shares; bytes are payload bytes.
    ``server_global`` and ``fleet`` are accuracies of the server's predictor, on its own
    test set and on what devices hold out; a run has one of the two. ``recall``, with
    None for a class without samples, and ``balanced``, their mean, are of the same
    answers, as is ``confusion``, of which the line says nothing (rows: true classes).
    ``local_recall`` and ``local_balanced`` are of all clients' models together, each on
    its own held-out samples. ``fleet_clients`` are the devices that measured ``fleet``,
    None in a run that has the other; ``fleet_bytes`` went to them and back, beside
    ``bytes_down`` and ``bytes_up``.
    Where devices differ (``common.data.domains``), every client is measured in its own
    domain, ``server_global`` is the mean over all clients' domains, ``served`` that of
    what the server would hand each client, and ``worst_group`` the lowest mean of
    ``client_global`` over the clients of one domain; elsewhere the line says nothing of
    the last two, nor of ``domain``.
    ``client_local`` is the mean over clients, ``client_local_weighted`` that by their
    held-out samples, ``client_local_worst`` that of the worst tenth.
    ``ended`` is the time of day (UTC) at which it was done.
    ``privacy`` is what the models released so far may say of a client: ``epsilon`` at
    ``delta`` and what it is made of; the line of a run without has neither of the two.
    ``refused`` counts, of ``rejected``, replies that could be read and broke a rule or
    a bound. ``resting`` has the clients that are left alone, each with the first round
    in which it is asked again. ``merged`` is False for a round that was skipped;
    ``late`` counts replies that came when nobody waited for them any more. A late reply
    that was merged is among ``clients``, and in all that is counted, of the round it
    was merged in.
    """

    round: int
    merged: bool
    server_global: float | None
    cv_round: float | None
    cv_cumulative: float | None
    cv_samples: float | None
    cv_layers: list[float | None]
    load: list[int]
    samples: list[int]
    seconds: float
    solver: dict[str, Any] | None
    notes: list[str]
    rejected: dict[str, str]
    late: int
    ended: str
    clients: list[ClientRound]
    fleet: float | None = None
    served: float | None = None
    recall: list[float | None] | None = None
    balanced: float | None = None
    local_recall: list[float | None] | None = None
    local_balanced: float | None = None
    fleet_clients: list[str] | None = None
    fleet_bytes: int = 0
    refused: int = 0
    resting: dict[str, int] = field(default_factory=dict)
    privacy: dict[str, Any] | None = None
    confusion: NDArray[np.int64] | None = field(default=None, repr=False)

    def mean(self, name: str) -> float | None:
        """Return the mean of a client measure over the clients that reported it."""
        values = [getattr(client, name) for client in self.clients]
        return _mean([value for value in values if value is not None])

    def own_metrics(self) -> dict[str, float | None]:
        """Return the means of what clients measured of their own: ``metrics.NAME``."""
        found: dict[str, list[float]] = {}
        for client in self.clients:
            for name, value in client.metrics.items():
                found.setdefault(f"{OWN}{name}", []).append(value)
        return {name: _mean(found[name]) for name in sorted(found)}

    def local_means(self) -> dict[str, float | None]:
        """Return the means of ``client_local`` over the clients that have it."""
        found = [
            (client.client_local, client.held_out)
            for client in self.clients
            if client.client_local is not None
        ]
        values, weights = [value for value, _ in found], [n for _, n in found]
        return {
            "client_local": _mean(values),
            "client_local_weighted": weighted_mean(values, weights),
            "client_local_worst": worst_tenth(values) if values else None,
        }

    @property
    def differ(self) -> bool:
        """Whether devices differ in what they see or what they call it."""
        known = any(client.domain is not None for client in self.clients)
        return known or self.served is not None

    @property
    def worst_group(self) -> float | None:
        """Lowest mean of ``client_global`` over the clients of one domain."""
        groups: dict[str, list[float]] = {}
        for client in self.clients:
            if client.domain is not None and client.client_global is not None:
                groups.setdefault(client.domain, []).append(client.client_global)
        means = [fmean(values) for values in groups.values()]
        return min(means, default=None)

    @property
    def dead_share(self) -> float | None:
        """Share of the merged placements that no sample was routed to."""
        if not self.merged:
            return None
        used = [n > 0 for client in self.clients for n in client.expert_samples]
        return 1 - sum(used) / len(used) if used else None

    @property
    def bytes_down(self) -> int:
        """Bytes sent to clients this round."""
        return sum(client.bytes_down for client in self.clients)

    @property
    def bytes_up(self) -> int:
        """Bytes of accepted replies this round."""
        return sum(client.bytes_up for client in self.clients)

    def to_json(self) -> dict[str, Any]:
        """Return the object written to ``metrics.jsonl``."""
        summary = {
            "client_global": self.mean("client_global"),
            **self.local_means(),
            "train_loss": self.mean("train_loss"),
            "dead_share": self.dead_share,
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
            **self.own_metrics(),
        }
        fields = {**vars(self), "clients": [{**vars(each)} for each in self.clients]}
        del fields["confusion"]
        if self.privacy is None:
            del fields["privacy"]
        else:
            summary["epsilon"] = self.privacy["epsilon"]
        if self.differ:
            summary["worst_group"] = self.worst_group
        else:
            del fields["served"]
            for client in fields["clients"]:
                del client["domain"]
        layers = fields.pop("cv_layers")
        if len(layers) > 1:
            summary |= {f"cv_layer_{n}": cv for n, cv in enumerate(layers, 1)}
        return {**fields, **summary}

    def scalars(self) -> dict[str, int | float]:
        """Return what is one finite number per round.

        Recall by class is there as ``recall.0``, ``recall.1`` and so on, of no more
        than ``MOST_SQUARE`` classes.
        """
        line = self.to_json()
        for name in ("recall", "local_recall"):
            shares = line[name] or []
            if len(shares) <= MOST_SQUARE:
                line |= {f"{name}.{k}": share for k, share in enumerate(shares)}
        return {
            key: value
            for key, value in line.items()
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
        }

    def to_metrics(self) -> MetricRecord:
        """Return the scalars as a Flower MetricRecord."""
        return MetricRecord({**self.scalars()})

    def line(self, header: bool = False) -> str:
        """Return the table line of this round, or the header above it.

        It has at most ``WIDTH`` columns: what finds no room is in ``metrics.jsonl``.
        """
        # A run has one of the two, and it is the same predictor.
        measured = ("server", self.server_global)
        if self.fleet_clients is not None:
            measured = ("fleet", self.fleet)
        differing = [
            ("worst", 7, _number(self.worst_group)),
            ("served", 7, _number(self.served)),
        ]
        private = [("epsilon", 7, _number((self.privacy or {}).get("epsilon"), 3))]
        columns = [
            ("round", 5, f"{self.round}"),
            (measured[0], 7, _number(measured[1])),
            ("balanced", 8, _number(self.balanced)),
            ("global", 7, _number(self.mean("client_global"))),
            ("local", 7, _number(self.mean("client_local"))),
            *(differing if self.differ else []),
            *(private if self.privacy else []),
            ("CV", 6, _number(self.cv_round, 3)),
            ("CV cum", 7, _number(self.cv_cumulative, 4)),
            ("dead", 6, _number(self.dead_share, 3)),
            ("MB down", 8, f"{self.bytes_down / 1e6:.2f}"),
            ("MB up", 7, f"{self.bytes_up / 1e6:.2f}"),
            ("round s", 8, f"{self.seconds:.2f}"),
        ]
        for name in _LEFT_OUT:
            if sum(width + 1 for _, width, _ in columns) <= WIDTH + 1:
                break
            columns = [column for column in columns if column[0] != name]
        return " ".join(
            (name if header else text).rjust(width) for name, width, text in columns
        )


def balance(counts: NDArray[np.int64]) -> float | None:
    """Return how uneven counts are; None where nothing was counted."""
    return coefficient_of_variation(counts) if counts.any() else None


def _mean(values: list[float]) -> float | None:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.mean(values)) if values else None


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
