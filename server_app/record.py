"""What is remembered of one round: the line of ``metrics.jsonl`` and of the table."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from flwr.app import MetricRecord

from common.wire import TrainReport


@dataclass(kw_only=True)
class ClientRound:
    """One participant in one round; accuracies are None where not evaluated."""

    client: str
    experts: list[int]
    budget: int
    bytes_down: int = 0
    bytes_up: int = 0
    replied: bool = False
    num_examples: int = 0
    expert_samples: list[int] = field(default_factory=list)
    train_loss: float | None = None
    client_global: float | None = None
    client_local: float | None = None
    seconds: float = 0.0
    seconds_until_reply: float = 0.0
    memory_peak: int | None = None

    def line(self) -> str:
        """Return what this device held and did, in a line of the log."""
        held = f"{len(self.experts)} of {self.budget}"
        if not self.replied:
            return f"{self.client:<12} {held:>9}  no reply"
        peak = "" if self.memory_peak is None else f"{self.memory_peak >> 20:6d} MiB"
        return (
            f"{self.client:<12} {held:>9} {self.bytes_down / 1e6:8.2f} MB down "
            f"{self.bytes_up / 1e6:8.2f} MB up {self.seconds_until_reply:7.1f} s {peak}"
        )

    def add_reply(self, report: TrainReport, bytes_up: int, elapsed: float) -> None:
        """Note what an accepted reply said, and how long after its order it came."""
        self.replied = True
        self.bytes_up += bytes_up
        self.num_examples = report.num_examples
        self.expert_samples = report.expert_samples
        self.train_loss = report.train_loss
        self.client_global = report.client_global
        self.client_local = report.client_local
        self.seconds = report.seconds_total
        self.seconds_until_reply = elapsed
        self.memory_peak = report.memory_peak


@dataclass(kw_only=True)
class RoundRecord:
    """One line of ``metrics.jsonl``.

    ``cv_round`` and ``cv_cumulative`` are of assignment counts (clients that held an
    expert and replied), in this round and summed over all; ``cv_samples`` is of the
    samples routed in this round. ``cv_layers`` is ``cv_cumulative`` within each mixture
    layer, written as ``cv_layer_1``, ... where there are several. Accuracies are
    shares; bytes are payload bytes.
    ``ended`` is the time of day (UTC) at which it was done.
    ``merged`` is False for a round that was skipped for lack of replies; ``late``
    counts replies that came when nobody waited for them any more.
    """

    round: int
    merged: bool
    server_global: float | None
    cv_round: float
    cv_cumulative: float
    cv_samples: float
    cv_layers: list[float]
    load: list[int]
    samples: list[int]
    seconds: float
    solver: dict[str, Any] | None
    notes: list[str]
    rejected: dict[str, str]
    late: int
    ended: str
    clients: list[ClientRound]

    def mean(self, name: str) -> float | None:
        """Return the mean of a client measure over the clients that reported it."""
        values = [getattr(client, name) for client in self.clients]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

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
            "client_local": self.mean("client_local"),
            "train_loss": self.mean("train_loss"),
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
        }
        fields = asdict(self)
        layers = fields.pop("cv_layers")
        if len(layers) > 1:
            summary |= {f"cv_layer_{n}": cv for n, cv in enumerate(layers, 1)}
        return {**fields, **summary}

    def scalars(self) -> dict[str, int | float]:
        """Return what is one number per round."""
        return {
            key: value
            for key, value in self.to_json().items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }

    def to_metrics(self) -> MetricRecord:
        """Return the scalars as a Flower MetricRecord."""
        return MetricRecord({**self.scalars()})

    def line(self, header: bool = False) -> str:
        """Return the table line of this round, or the header above it."""
        solver = self.solver or {"status": "-", "seconds": 0.0}
        columns = [
            ("round", 5, f"{self.round}"),
            ("server", 7, _share(self.server_global)),
            ("global", 7, _share(self.mean("client_global"))),
            ("local", 7, _share(self.mean("client_local"))),
            ("CV", 7, f"{self.cv_round:.3f}"),
            ("CV cum", 7, f"{self.cv_cumulative:.4f}"),
            ("MB down", 8, f"{self.bytes_down / 1e6:.2f}"),
            ("MB up", 8, f"{self.bytes_up / 1e6:.2f}"),
            ("solver", 9, str(solver["status"])),
            ("solve s", 8, f"{solver['seconds']:.3f}"),
            ("round s", 8, f"{self.seconds:.2f}"),
        ]
        return " ".join(
            (name if header else text).rjust(width) for name, width, text in columns
        )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
