"""Callbacks that hand the metrics of a run to a monitoring system.

``callbacks="prometheus, otlp"``: either or both. What is measured is
in ``server_app.callbacks.run_metrics``. Where it goes is in the environment:

prometheus
    ``<run>/metrics.prom`` is rewritten after each round, whole or not at all;
    ``EXPERTFLEET_TEXTFILE_DIR`` names node_exporter's directory, where it is
    ``expertfleet-run.prom``, for whichever run is the newest.
otlp
    Sent every ten seconds by gRPC to ``OTEL_EXPORTER_OTLP_ENDPOINT``
    (http://localhost:4317); the OpenTelemetry SDK reads its other variables as well.
"""

import os
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from common.errors import SettingsError
from common.exposition import exposition
from common.files import atomic_write
from common.settings import Settings
from server_app.callbacks.hooks import Callback, RunStart
from server_app.callbacks.run_metrics import RunMetrics
from server_app.contract import Algorithm
from server_app.rounds.record import RoundRecord

TEXTFILE = "metrics.prom"
DIRECTORY = "EXPERTFLEET_TEXTFILE_DIR"

EVERY = 10_000.0
"""Milliseconds between two sendings to a collector."""
LEAVE = 5_000.0
"""Milliseconds the last sending may take."""


class MetricSender(Callback):
    """Keeps the metrics of a run, and sends them after each round.

    Raises
    ------
    SettingsError
        If its library is not installed.
    """

    package: ClassVar[str]
    extra: ClassVar[str]
    tried_again = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        try:
            found = find_spec(self.package)
        except ModuleNotFoundError:  # the package it is in
            found = None
        if found is None:
            raise SettingsError(
                f"callbacks = {settings.run.callbacks!r} is not allowed here: "
                f"{self.package} is not installed (pip install "
                f"'expertfleet[{self.extra}]')"
            )

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Count the rounds that are done."""
        self.metrics = RunMetrics(run.name, self.settings.rounds.num_rounds)
        for line in run.history:
            self.metrics.add(line)
        self.begin(run)
        self.send()

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Count a round."""
        self.metrics.add(record.to_json())
        self.send()

    def begin(self, run: RunStart) -> None:
        """Prepare to send."""

    def send(self) -> None:
        """Send what there is now."""


class Prometheus(MetricSender):
    """A file for the textfile collector of node_exporter."""

    package = "prometheus_client"
    extra = "metrics"

    def begin(self, run: RunStart) -> None:
        """Find out which files to write."""
        self._files = [run.path / TEXTFILE]
        if folder := os.environ.get(DIRECTORY):
            self._files.append(Path(folder) / "expertfleet-run.prom")

    def send(self) -> None:
        """Rewrite them."""
        text = exposition(self.metrics.metrics()).encode()
        for path in self._files:
            with atomic_write(path, mode=0o644) as file:
                file.write(text)


class OTLP(MetricSender):
    """An OpenTelemetry collector, by gRPC."""

    package = "opentelemetry.exporter.otlp.proto.grpc"
    extra = "otlp"

    def begin(self, run: RunStart) -> None:
        """Make the instruments; the SDK asks each for its value when it sends."""
        sdk = import_module("opentelemetry.sdk.metrics")
        export = import_module("opentelemetry.sdk.metrics.export")
        exporter = import_module(f"{self.package}.metric_exporter").OTLPMetricExporter
        resource = import_module("opentelemetry.sdk.resources").Resource
        # By its own thread: a collector that is away holds no round up.
        every = None if "OTEL_METRIC_EXPORT_INTERVAL" in os.environ else EVERY
        self._reader = export.PeriodicExportingMetricReader(exporter(), every)
        self._provider = sdk.MeterProvider(
            [self._reader],
            resource=resource.create({"service.name": "expertfleet"}),
            shutdown_on_exit=False,
        )
        meter = self._provider.get_meter("expertfleet")
        for metric in self.metrics.metrics():
            kind = "counter" if metric.counter else "gauge"
            make = getattr(meter, f"create_observable_{kind}")
            make(metric.name, [self._observer(metric.name)], description=metric.text)

    def on_run_end(self) -> None:
        """Send what is left, and let go of the connection."""
        self._provider.shutdown(timeout_millis=LEAVE)

    def _observer(self, name: str) -> Any:
        observation = import_module("opentelemetry.metrics").Observation

        def observe(_: Any) -> Iterator[Any]:
            [metric] = [m for m in self.metrics.metrics() if m.name == name]
            for labels, value in metric.samples:
                yield observation(float(value), dict(labels))

        return observe
