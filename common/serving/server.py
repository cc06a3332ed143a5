"""The server process: credentials, standard services, newer models, a clean end."""

import asyncio
import logging
import signal
import socket
from dataclasses import dataclass

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from common.errors import SourceError
from common.exposition import Metric
from common.newest import Newest
from common.serving.batcher import Batcher
from common.serving.call_guard import CallGuard
from common.serving.callers import CallerCheck, CallerList
from common.serving.calls import Calls
from common.serving.connections import Connections, most_connections, raise_file_limit
from common.serving.credentials import Credentials
from common.serving.inference_pb2_grpc import add_InferenceServicer_to_server
from common.serving.memory import (
    STANDARD_CALLS,
    ServingLimits,
    limits_for,
    message_bytes,
    zeros,
)
from common.serving.servable import ModelSource, Servable
from common.serving.service import NAME, InferenceService, read_tokeniser
from common.serving.telemetry import Telemetry

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

STANDARD_BYTES = 4096
"""Of a message to health and reflection."""

CONNECTION_CALLS = 128
"""Under way on one connection; the caller's gRPC holds back the others."""

HANDSHAKE_MS = 10_000
"""Time for what comes before the first call, and for the answer to a ping."""

SWEEP = 0.1
"""Seconds between looks for what has to end."""

_PREFIX = "expertfleet_serving_"

logger = logging.getLogger("expertfleet.serving")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How to serve.

    Attributes
    ----------
    host, port : str, int
        Port 0 takes a free one.
    credentials : Credentials or None
        None serves in plain text.
    memory : int
        Budget in bytes, see :mod:`common.serving.memory`.
    batch, queue : int
        Samples computed together, and calls that may wait for a place.
    poll, grace : float
        Seconds between looks for a newer model, and seconds requests get to finish
        when the server stops.
    idle : float
        Seconds a caller may neither send nor take anything.
    members : CallerList or None
        Only these may call; needs credentials that ask for a client certificate.
    metrics : (host, port) or None
        Where Prometheus may fetch its metrics, in plain HTTP.
    """

    host: str = "127.0.0.1"
    port: int = 0
    credentials: Credentials | None = None
    memory: int
    batch: int = 32
    queue: int = 256
    poll: float = 2.0
    grace: float = 10.0
    idle: float = 60.0
    members: CallerList | None = None
    metrics: tuple[str, int] | None = None


class Server:
    """A service on its port: started, and later stopped without dropping a request.

    Parameters
    ----------
    source : ModelSource
    options : ServeOptions

    Attributes
    ----------
    servable, limits : Servable, ServingLimits
        The model being served, and what it leaves room for.
    batcher : Batcher
    address : str
        Where it listens, once started.

    Raises
    ------
    SourceError
        If there is no model to start with, or it does not fit into the budget.
    """

    def __init__(self, source: ModelSource, options: ServeOptions) -> None:
        self._source, self._options = source, options
        self._message_bytes = 0
        self._newest = Newest(
            "the model served so far", source.version, self._load, SourceError, logger
        )
        self.servable, self.limits = self._newest.value
        limits = self.limits
        self.batcher = Batcher(
            batch=limits.batch, max_requests=options.queue, max_bytes=limits.queue_bytes
        )
        self.address = ""
        self.files = raise_file_limit()
        self._most_connections = most_connections(self.files)
        self._calls = Calls(
            limits.calls, limits.request_bytes, line=options.queue, idle=options.idle
        )
        self._standard = Calls(
            STANDARD_CALLS, STANDARD_BYTES, line=STANDARD_CALLS, lent=True
        )
        self._refusal = CallerCheck(options.members).refusal
        self._guard = CallGuard(
            self._refusal,
            {NAME: self._calls},
            self._standard,
            lambda connection: self._connections.cut(connection),
            self._note,
        )
        self.telemetry: Telemetry | None = None
        self._health = health.HealthServicer()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def summary(self) -> str:
        """What may be under way at a time, for the log."""
        return (
            f"at most {self.limits.calls} calls and {self._most_connections} "
            f"connections at a time; limit of open files {self.files}"
        )

    def _note(self, method: str, code: str, seconds: float) -> None:
        if self.telemetry is not None:
            self.telemetry.note(method, code, seconds)

    async def start(self) -> None:
        """Listen and answer; raises OSError if the address cannot be listened on."""
        options = self._options
        _check_free(options.host, options.port)
        if options.metrics is not None:
            self.telemetry = Telemetry(*options.metrics, self.loads)
        await self._health.set(NAME, health_pb2.HealthCheckResponse.SERVING)
        port = await self._open(options.port)
        self.address = f"{options.host}:{port}"
        self._connections = Connections(port, self._most_connections)
        work = self.batcher.run(), self._watch(options.poll), self._sweep()
        self._tasks = [asyncio.create_task(task) for task in work]

    async def stop(self) -> None:
        """Refuse new requests, answer those under way, then end."""
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.create_task(self._grpc.stop(self._options.grace))
        for calls in (self._calls, self._standard):
            calls.drain("the server is stopping")
        await stopping
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.batcher.close()
        if self.telemetry is not None:
            self.telemetry.close()

    def loads(self) -> list[Metric]:
        """Return what there is to do now, and what was computed."""
        limits = self.limits
        named = {"model": self.servable.run, "round": str(self.servable.server_round)}
        gauges = (
            ("calls", "Calls under way.", len(self._calls)),
            ("calls_most", "Calls that may be under way.", limits.calls),
            ("calls_waiting", "Calls that wait for a place.", self._calls.waiting),
            ("queue_requests", "Requests that wait for a batch.", self.batcher.waiting),
            ("queue_bytes", "Bytes of their samples.", self.batcher.nbytes),
            ("queue_bytes_most", "Bytes that may wait.", limits.queue_bytes),
            ("connections", "Connections with a call so far.", len(self._guard.known)),
        )
        counters = (
            ("batches", "Batches computed.", self.batcher.batches),
            ("samples", "Samples computed.", self.batcher.samples),
        )
        return [
            *(Metric(f"{_PREFIX}{n}", text, [({}, v)]) for n, text, v in gauges),
            *(
                Metric(f"{_PREFIX}{n}", text, [({}, v)], counter=True)
                for n, text, v in counters
            ),
            Metric(f"{_PREFIX}model", "1 for the model served.", [(named, 1)]),
        ]

    async def _open(self, port: int) -> int:
        """Listen; return the port."""
        milliseconds = round(1000 * self._options.idle)
        server = grpc.aio.server(
            interceptors=[self._guard],
            options=[
                # Fixed while it listens: what the model at hand takes, the guard knows.
                ("grpc.max_receive_message_length", self._message_bytes),
                ("grpc.max_concurrent_streams", CONNECTION_CALLS),
                # It resets calls that an honest caller's gRPC would have held back.
                ("grpc.http.overload_protection", 0),
                # Of a message that nobody reads yet, 64 KiB come in and not megabytes.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.max_allowed_incoming_connections", self._most_connections),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                ("grpc.max_connection_idle_ms", milliseconds),
                # Whose other end has gone without a word.
                ("grpc.keepalive_time_ms", milliseconds),
                ("grpc.keepalive_timeout_ms", HANDSHAKE_MS),
                ("grpc.so_reuseport", 0),
            ],
        )
        service = InferenceService(lambda: (self.servable, self.limits), self.batcher)
        add_InferenceServicer_to_server(service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (NAME, HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        address = f"{self._options.host}:{port}"
        credentials = self._options.credentials
        try:
            if credentials is None:
                port = int(server.add_insecure_port(address))
            else:
                port = int(server.add_secure_port(address, credentials.for_server()))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
        await server.start()
        self._grpc = server
        return port

    def _load(self) -> tuple[Servable, ServingLimits]:
        """Load the newest model; raises SourceError if it cannot be served."""
        options, servable = self._options, self._source.load()
        # The first model decides: gRPC is told once, when it starts to listen.
        self._message_bytes = self._message_bytes or message_bytes(
            servable, options.memory
        )
        calls = options.queue + 64
        limits = limits_for(
            servable, options.memory, options.batch, calls, self._message_bytes
        )
        read_tokeniser(servable)
        # The first call of a shape builds kernels; no request shall wait for that.
        warm = servable.answer(zeros(servable, limits.batch))
        if not np.isfinite(warm.probabilities).all():
            raise SourceError(f"the model of {servable.name}, answers NaN")
        return servable, limits

    def _use(self, servable: Servable, limits: ServingLimits) -> None:
        """Serve another model: its limits are told and kept from the same moment."""
        self.servable, self.limits = servable, limits
        self.batcher.batch, self.batcher.max_bytes = limits.batch, limits.queue_bytes
        self._calls.most, self._calls.largest = limits.calls, limits.request_bytes

    async def _watch(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                if await asyncio.to_thread(self._newest.refresh):
                    self._use(*self._newest.value)
                    logger.info("now serving %s (%s)", self.servable.name, self.summary)
            except Exception:
                # Whatever a half-understood file does, the model at hand still answers.
                logger.exception("looking for a newer model failed")

    async def _sweep(self) -> None:
        """End calls and connections that have no place any longer."""
        while True:
            await asyncio.sleep(SWEEP)
            try:
                for calls in (self._calls, self._standard):
                    calls.sweep(self._refusal)
                busy = {call.caller.connection for call in self._calls}
                self._connections.sweep(self._guard.known, busy)
            except Exception:
                logger.exception("looking for calls to end failed")


def _check_free(host: str, port: int) -> None:
    """Raise OSError if somebody listens there; of two addresses gRPC takes just one."""
    name = host.strip("[]")
    for family, kind, _, _, address in socket.getaddrinfo(
        name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None


async def serve(source: ModelSource, options: ServeOptions) -> None:
    """Serve until SIGTERM or Ctrl-C, answer what is under way, and return.

    A second signal ends the process at once. Raises what :class:`Server` does.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def ask_to_stop() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    server = Server(source, options)
    await server.start()
    for number in signals:
        loop.add_signal_handler(number, ask_to_stop)
    credentials = options.credentials
    logger.info(
        "serving %s, on %s (%s; %s)",
        server.servable.name,
        server.address,
        credentials.summary if credentials else "plain text",
        server.summary,
    )
    logger.info("its task: %s", server.servable.task_in_words)
    if server.telemetry is not None:
        logger.info("metrics on http://%s/metrics", server.telemetry.address)
    await stop.wait()
    logger.info("stopping: answering what is under way")
    await server.stop()
    logger.info("stopped")
