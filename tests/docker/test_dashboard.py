"""The dashboard for Grafana asks for what is exported, and a real Prometheus answers.

Grafana itself is in no package registry: that it draws the file was not tried.
"""

import asyncio
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from common.exposition import exposition
from server_app.callbacks.run_metrics import RunMetrics
from server_app.provisioning.known_nodes import KnownNodes
from server_app.provisioning.run_status import DeviceRecord, RunStatus
from server_app.provisioning.status import DeviceStatus, FleetStatus
from server_app.provisioning.status_formats import metrics as fleet_metrics
from server_app.provisioning.validity import Ending
from tests.common.serving.support import (
    Shelf,
    calling,
    images,
    make_servable,
    request,
    serving,
)
from tests.docker.support import ROOT
from tests.ports import free_port

BOARD = json.loads((ROOT / "docker/grafana/expertfleet.json").read_text())
EXPRESSIONS = [
    target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", [])
]


def fleet_text() -> str:
    """A fleet with everything that has a metric."""
    client = {"replied": True}
    record = DeviceRecord("pi0", budget=2, experts=[1], last_round=3, memory_peak=5)
    record.seconds.append(1.5)
    run = RunStatus(
        path=Path("run"),
        name="run",
        state="running",
        why="",
        flower_run="7",
        round=3,
        rounds=10,
        ended="2026-11-30T10:00:00Z",
        last={"clients": [client], "refused": 0},
        devices={"pi0": record},
    )
    device = DeviceStatus(
        name="pi0", state="online", expected=True, age=5.0, record=record
    )
    status = FleetStatus(
        time=time.time(),
        nodes=KnownNodes(address="lab:1"),
        run=run,
        devices=[device],
        certificates=[Ending(what="the authority", days=9)],
    )
    return exposition(fleet_metrics(status))


def run_text() -> str:
    """A run with everything that has a metric."""
    metrics = RunMetrics("run", 10)
    names = (
        *("server_global", "fleet", "balanced", "client_global", "client_local"),
        *("train_loss", "epsilon", "cv_round", "cv_cumulative", "dead_share"),
    )
    line: dict[str, Any] = dict.fromkeys(names, 0.5)
    line |= {"round": 1, "seconds": 2.0, "late": 0, "resting": {}, "merged": True}
    line |= {"bytes_down": 8, "bytes_up": 2, "refused": 0, "load": [1], "samples": [3]}
    line["clients"] = [{"replied": True, "seconds_until_reply": 1.0}]
    metrics.add({**line, "metrics.f1": 0.5})
    return exposition(metrics.metrics())


@contextmanager
def pages(texts: dict[str, str]) -> Iterator[str]:
    """Serve texts as node_exporter would its text files; yield HOST:PORT."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(texts[self.path].encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def names_in(text: str) -> set[str]:
    return set(re.findall(r"^(expertfleet_\w+)", text, re.M))


async def with_a_service(seen: Any) -> None:
    """Call something with the scrape address of a service that is used."""
    async with serving(Shelf(make_servable()), metrics=("127.0.0.1", 0)) as server:
        async with calling(server) as stub:
            await stub.Predict(request(images(2)))
        assert server.telemetry is not None
        await asyncio.to_thread(seen, server.telemetry.address)


def test_every_metric_of_the_dashboard_is_exported() -> None:
    found = names_in(fleet_text()) | names_in(run_text())

    def add(address: str) -> None:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
            found.update(names_in(answer.read().decode()))

    asyncio.run(with_a_service(add))
    asked = {
        name for each in EXPRESSIONS for name in re.findall(r"expertfleet_\w+", each)
    }
    assert asked and asked <= found, asked - found
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="apt-get install prometheus"
)
def test_a_real_prometheus_answers_every_expression(tmp_path: Path) -> None:
    def seen(service: str) -> None:
        with pages({"/fleet": fleet_text(), "/run": run_text()}) as files:
            scrapes = [("fleet", files), ("run", files), ("metrics", service)]
            jobs = [
                {
                    "job_name": path,
                    "metrics_path": f"/{path}",
                    "static_configs": [{"targets": [target]}],
                }
                for path, target in scrapes
            ]
            config = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
            answered(tmp_path, config)

    asyncio.run(with_a_service(seen))


def answered(folder: Path, config: dict[str, Any]) -> None:
    """Start a Prometheus and ask until every expression has a result."""
    (folder / "prometheus.yml").write_text(json.dumps(config))  # YAML as well
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        waiting, deadline = list(EXPRESSIONS), time.monotonic() + 120
        while waiting:
            waiting = [each for each in waiting if not ask(address, each)]
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, waiting
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait(30)


def ask(address: str, expression: str) -> list[Any]:
    """Return the samples an expression has now; an error of its syntax raises."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(
            f"http://{address}/api/v1/query?{query}", timeout=30
        ) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 503:  # it is starting
            return []
        raise AssertionError(f"{expression}: {error.read().decode()}") from None
    except OSError:
        return []
    result: list[Any] = found["data"]["result"]
    return result


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="apt-get install prometheus"
)
def test_what_is_exported_is_as_prometheus_wants_it() -> None:
    for text in (fleet_text(), run_text()):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
