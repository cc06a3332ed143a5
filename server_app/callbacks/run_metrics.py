"""The metrics of a run: what each round was, for Prometheus and for OpenTelemetry."""

from collections.abc import Iterable, Mapping
from typing import Any

from common.exposition import Metric
from server_app.rounds.record import OWN

PREFIX = "expertfleet_run_"

_NUMBERS = {
    "server_global": "Accuracy of the server's predictor on its test set.",
    "fleet": "Accuracy of the server's predictor on the devices' held-out samples.",
    "balanced": "Mean of its recall over classes.",
    "client_global": "Mean accuracy of the clients' models on the server's test set.",
    "client_local": "Mean accuracy of the clients' models on their own samples.",
    "train_loss": "Mean loss of the clients.",
    "epsilon": "What the models released so far may say of a client.",
    "cv_round": "Coefficient of variation of the load, of the newest round.",
    "cv_cumulative": "The same, of all rounds.",
    "dead_share": "Share of placements that no sample was routed to.",
    "seconds": "Seconds of the newest round.",
    "late": "Replies that nobody waited for any more.",
}
"""Of a round's line: what is one number, with its meaning."""


class RunMetrics:
    """Metrics of one run, kept up to date line by line of ``metrics.jsonl``.

    Parameters
    ----------
    run : str
        Its name, a label of every sample.
    rounds : int
        ``num-rounds``.
    """

    def __init__(self, run: str, rounds: int) -> None:
        self._run, self._rounds = {"run": run}, rounds
        self._last: Mapping[str, Any] = {}
        self._bytes = {"down": 0, "up": 0}
        self._replies = {"accepted": 0, "refused": 0, "missing": 0}
        self._load: list[int] = []
        self._samples: list[int] = []

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in a round."""
        self._last = line
        for way in self._bytes:
            self._bytes[way] += line[f"bytes_{way}"]
        replied = sum(client["replied"] for client in line["clients"])
        refused = line["refused"]
        self._replies["accepted"] += replied
        self._replies["refused"] += refused
        self._replies["missing"] += max(0, len(line["clients"]) - replied - refused)
        self._load = _added(self._load, line["load"])
        self._samples = _added(self._samples, line["samples"])

    def metrics(self) -> list[Metric]:
        """Return every metric, those without a sample as well."""
        line = self._last
        found = [
            self._one("round", "Rounds done.", line.get("round", 0)),
            self._one("rounds", "Rounds the run is to have.", self._rounds),
            *(self._one(n, text, line.get(n)) for n, text in _NUMBERS.items()),
            self._one("resting", "Clients left alone.", len(line.get("resting", ()))),
            self._one(
                "merged", "Whether the newest round was merged.", line.get("merged")
            ),
            self._by(
                "payload_bytes",
                "Sent to clients, and of their accepted replies.",
                "way",
                self._bytes,
            ),
            self._by(
                "replies", "Orders by what came of them.", "result", self._replies
            ),
            self._by_expert(
                "load", "Clients that held an expert and replied.", self._load
            ),
            self._by_expert("samples", "Samples routed to an expert.", self._samples),
        ]
        own = {
            name.removeprefix(OWN): value
            for name, value in line.items()
            if name.startswith(OWN) and value is not None
        }
        samples = [(self._run | {"name": name}, value) for name, value in own.items()]
        found.append(
            Metric(
                f"{PREFIX}own", "Mean of what clients measured of their own.", samples
            )
        )
        latency = [
            c["seconds_until_reply"] for c in line.get("clients", ()) if c["replied"]
        ]
        found += [
            self._one(f"reply_seconds_{name}", f"From order to reply: {name}.", value)
            for name, value in (
                ("min", min(latency, default=None)),
                ("mean", sum(latency) / len(latency) if latency else None),
                ("max", max(latency, default=None)),
            )
        ]
        return found

    def _one(self, name: str, text: str, value: float | None) -> Metric:
        samples = () if value is None else ((self._run, value),)
        return Metric(f"{PREFIX}{name}", text, samples)

    def _by(
        self, name: str, text: str, label: str, values: Mapping[str, int]
    ) -> Metric:
        samples = [(self._run | {label: each}, n) for each, n in values.items()]
        return Metric(f"{PREFIX}{name}", text, samples, counter=True)

    def _by_expert(self, name: str, text: str, values: Iterable[int]) -> Metric:
        return self._by(name, text, "expert", {str(e): n for e, n in enumerate(values)})


def _added(before: list[int], more: list[int]) -> list[int]:
    return [a + b for a, b in zip(before or [0] * len(more), more, strict=True)]
