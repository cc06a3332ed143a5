"""Metrics as Prometheus reads them: as text, in a file, and at a port.

What is measured is said where it is measured; ``prometheus_client``, the official
library (extra ``metrics``), writes it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class MetricsError(RuntimeError):
    """Metrics cannot be given; the message is one line."""


@dataclass(frozen=True)
class Metric:
    """A metric with its samples now.

    Attributes
    ----------
    name : str
        A counter's without ``_total``, which its samples have.
    text : str
        What it means.
    samples : sequence of (labels, value)
    counter : bool
        Whether it only grows; else it is a gauge.
    """

    name: str
    text: str
    samples: Sequence[tuple[Mapping[str, str], float]] = ()
    counter: bool = False


class Collected:
    """What ``prometheus_client`` asks for metrics.

    Parameters
    ----------
    metrics : callable
        Returns them as they are now.
    """

    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        """Yield each metric in the library's form."""
        core = prometheus().core
        for metric in self._metrics():
            kind = "Counter" if metric.counter else "Gauge"
            names = list(metric.samples[0][0]) if metric.samples else []
            make = getattr(core, f"{kind}MetricFamily")
            family = make(metric.name, metric.text, labels=names)
            for labels, value in metric.samples:
                family.add_metric([labels[name] for name in names], float(value))
            yield family


def exposition(metrics: Iterable[Metric]) -> str:
    """Return metrics in Prometheus' text format.

    Raises
    ------
    MetricsError
        If ``prometheus_client`` is not installed.
    """
    found = list(metrics)
    text: bytes = prometheus().generate_latest(Collected(lambda: found))
    return text.decode()


def prometheus() -> Any:
    """Return the library.

    Raises
    ------
    MetricsError
        If it is not installed.
    """
    try:
        import prometheus_client.core
    except ModuleNotFoundError:
        raise MetricsError(
            "prometheus_client is not installed: pip install 'expertfleet[metrics]'"
        ) from None
    return prometheus_client
