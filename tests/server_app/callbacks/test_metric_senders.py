"""The callbacks ``prometheus`` and ``otlp``, each read by the other side's library."""

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as stubs
from prometheus_client.parser import text_string_to_metric_families

from common.errors import SettingsError
from common.settings import Settings
from server_app.callbacks import metric_senders
from server_app.callbacks.callbacks import find_callbacks
from server_app.callbacks.run_metrics import RunMetrics
from server_app.commands.simulate import simulate
from server_app.run_folder.run_files import read_metrics

CONFIG: dict[str, Any] = {
    "num-rounds": 2,
    "num-experts": 4,
    "local-epochs": 1,
    "seed": 3,
}
Samples = dict[tuple[str, ...], float]


class Collector(stubs.MetricsServiceServicer):
    """What an OpenTelemetry collector is to a client."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  gRPC's
        self.requests.append(request)
        return pb.ExportMetricsServiceResponse()

    def samples(self) -> Samples:
        """Return the last value of each series: name and values of labels to value."""
        found: Samples = {}
        for request in self.requests:
            [resource] = request.resource_metrics
            [scope] = resource.scope_metrics
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    labels = sorted(
                        (a.key, a.value.string_value) for a in point.attributes
                    )
                    value = getattr(point, point.WhichOneof("value"))
                    name = metric.name + ("_total" if kind == "sum" else "")
                    found[(name, *(each for _, each in labels))] = value
        return found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    found = Collector()
    add: Any = stubs.add_MetricsServiceServicer_to_server
    add(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    yield found
    server.stop(None)


def read(text: str) -> Samples:
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_both_say_what_the_run_says(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metric_senders.DIRECTORY, str(tmp_path / "textfile"))
    (tmp_path / "textfile").mkdir()
    config = {**CONFIG, "output-dir": str(tmp_path), "callbacks": "prometheus, otlp"}
    run = simulate(config, 3)
    lines, _ = read_metrics(run)
    text = (run / metric_senders.TEXTFILE).read_text()
    assert (tmp_path / "textfile/expertfleet-run.prom").read_text() == text
    found, name = read(text), run.name
    assert found["expertfleet_run_round", name] == 2
    assert found["expertfleet_run_rounds", name] == 2
    for key in (
        "server_global",
        "client_local",
        "train_loss",
        "cv_round",
        "dead_share",
    ):
        assert found[f"expertfleet_run_{key}", name] == pytest.approx(lines[-1][key])
    for way in ("down", "up"):
        total = sum(line[f"bytes_{way}"] for line in lines)
        assert found["expertfleet_run_payload_bytes_total", name, way] == total
    # Labels in order of their names: expert, run.
    for expert in range(4):
        load = sum(line["load"][expert] for line in lines)
        assert found["expertfleet_run_load_total", str(expert), name] == load
    assert found["expertfleet_run_replies_total", "accepted", name] == 6
    seconds = [c["seconds_until_reply"] for c in lines[-1]["clients"]]
    assert found["expertfleet_run_reply_seconds_max", name] == pytest.approx(
        max(seconds)
    )

    sent = collector.samples()
    assert sent.keys() == found.keys()
    for series, value in found.items():
        assert sent[series] == pytest.approx(value), series


def test_a_collector_that_is_away_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens on the discard port.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    config = {**CONFIG, "output-dir": str(tmp_path), "callbacks": "otlp"}
    assert len(read_metrics(simulate(config, 3))[0]) == 2


def test_a_run_that_goes_on_counts_what_was(tmp_path: Path) -> None:
    config = {**CONFIG, "output-dir": str(tmp_path), "callbacks": "prometheus"}
    first = simulate({**config, "num-rounds": 1, "state-dir": str(tmp_path / "s")}, 3)
    before = read((first / metric_senders.TEXTFILE).read_text())
    resumed = {"resume-from": str(first), "state-dir": str(tmp_path / "s")}
    simulate({**config, **resumed, "num-rounds": 2}, 3)
    after = read((first / metric_senders.TEXTFILE).read_text())
    key = ("expertfleet_run_replies_total", "accepted", first.name)
    assert (before[key], after[key]) == (3, 6)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_senders, "find_spec", lambda _: None)
    for name, extra in (("prometheus", "metrics"), ("otlp", "otlp")):
        settings = Settings.from_run_config({"callbacks": name})
        with pytest.raises(SettingsError, match=rf"pip install 'expertfleet\[{extra}"):
            find_callbacks(settings)


def test_what_became_of_orders_and_own_numbers() -> None:
    metrics = RunMetrics("run", 5)
    clients = [
        {"replied": r, "seconds_until_reply": s}
        for r, s in ((True, 2.0), (True, 4.0), (False, 0.0), (False, 0.0))
    ]
    line = {
        "round": 1,
        "bytes_down": 8,
        "bytes_up": 2,
        "refused": 1,
        "load": [1, 2],
        "samples": [3, 4],
        "clients": clients,
        "resting": {"a": 4},
        "metrics.f1": 0.5,
    }
    metrics.add(line)
    metrics.add(line)
    found = {
        (metric.name, *labels.values()): value
        for metric in metrics.metrics()
        for labels, value in metric.samples
    }
    assert found["expertfleet_run_replies", "run", "accepted"] == 4
    assert found["expertfleet_run_replies", "run", "refused"] == 2
    assert found["expertfleet_run_replies", "run", "missing"] == 2
    assert found["expertfleet_run_reply_seconds_mean", "run"] == 3
    assert found["expertfleet_run_samples", "run", "1"] == 8
    assert found["expertfleet_run_resting", "run"] == 1
    assert found["expertfleet_run_own", "run", "f1"] == 0.5
