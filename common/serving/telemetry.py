"""What a service has done and has to do, for Prometheus to fetch at a port of its own.

Counts and times of calls, and how loaded it is. The port is plain HTTP and says nothing
of samples, answers or callers.
"""

from collections.abc import Callable, Iterable

from common.exposition import Collected, Metric, MetricsError, prometheus
from common.text import reason

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds of a call."""


class Telemetry:
    """A scrape port.

    Parameters
    ----------
    host, port : str, int
        Port 0 takes a free one.
    loads : callable
        Returns what the service has to do now; asked from another thread.

    Attributes
    ----------
    address : str

    Raises
    ------
    MetricsError
        If ``prometheus_client`` is not installed, or the address cannot be listened at.
    """

    def __init__(
        self, host: str, port: int, loads: Callable[[], Iterable[Metric]]
    ) -> None:
        library = prometheus()
        registry = library.CollectorRegistry()
        registry.register(Collected(loads))
        self._seconds = library.Histogram(
            "expertfleet_serving_call_seconds",
            "From the start of a call to its end.",
            ("method", "code"),
            buckets=BUCKETS,
            registry=registry,
        )
        try:
            found = library.start_http_server(port, host.strip("[]"), registry)
        except OSError as error:
            raise MetricsError(
                f"--metrics {host}:{port}: cannot listen there: {reason(error)}"
            ) from None
        self._server, self._thread = found
        self.address = f"{host}:{self._server.server_port}"

    def note(self, method: str, code: str, seconds: float) -> None:
        """Count a call that has ended with this status code."""
        self._seconds.labels(method, code).observe(seconds)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
