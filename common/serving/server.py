"""The server process: credentials, standard services, newer models, a clean end."""

import asyncio
import logging
import signal
from collections.abc import Hashable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from common.serving.batcher import Batcher
from common.serving.budget import Limits, limits_for, zeros
from common.serving.credentials import Credentials
from common.serving.inference_pb2_grpc import add_InferenceServicer_to_server
from common.serving.servable import Servable, Source, SourceError
from common.serving.service import NAME, InferenceService

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

logger = logging.getLogger("expertfleet.serving")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How to serve.

    Attributes
    ----------
    host, port : str, int
        Where to listen; port 0 takes a free one.
    credentials : Credentials or None
        None serves in plain text.
    memory : int
        Budget in bytes, see :mod:`common.serving.budget`.
    batch, queue : int
        Samples computed together, and requests that may wait.
    poll, grace : float
        Seconds between looks for a newer model, and seconds requests get to finish
        when the server stops.
    """

    host: str = "127.0.0.1"
    port: int = 0
    credentials: Credentials | None = None
    memory: int
    batch: int = 32
    queue: int = 256
    poll: float = 2.0
    grace: float = 10.0


class Current:
    """The model being served, replaced when its source has a newer one.

    Parameters
    ----------
    source : Source
    memory, batch : int
        Budget and batch a model must fit into.

    Raises
    ------
    SourceError
        If there is no model, or it does not fit.
    """

    def __init__(self, source: Source, memory: int, batch: int) -> None:
        self._source, self._memory, self._batch = source, memory, batch
        self._seen: Hashable = source.version()
        self._now = self._load()

    def __call__(self) -> tuple[Servable, Limits]:
        """Return the model and its limits."""
        return self._now

    @property
    def servable(self) -> Servable:
        """The model."""
        return self._now[0]

    @property
    def limits(self) -> Limits:
        """Its limits."""
        return self._now[1]

    def _load(self) -> tuple[Servable, Limits]:
        servable = self._source.load()
        limits = limits_for(servable, self._memory, self._batch)
        # The first call of a shape builds kernels; no request shall wait for that.
        servable.answer(zeros(servable, limits.batch))
        return servable, limits

    def refresh(self) -> bool:
        """Load the newest model if it is another; keep this one if that fails."""
        try:
            version = self._source.version()
            if version == self._seen:
                return False
            # Noted first: a model that cannot be used is complained about once.
            self._seen = version
            self._now = self._load()
        except SourceError as error:
            logger.error("keeping round %d: %s", self.servable.server_round, error)
            return False
        return True


class Server:
    """A service on its port: started, and later stopped without dropping a request.

    Parameters
    ----------
    source : Source
    options : ServeOptions

    Attributes
    ----------
    current : Current
        The model being served.
    batcher : Batcher
    address : str
        Where it listens, once started.

    Raises
    ------
    SourceError
        If there is no model to start with, or it does not fit into the budget.
    """

    def __init__(self, source: Source, options: ServeOptions) -> None:
        self.current = Current(source, options.memory, options.batch)
        self._options = options
        limits = self.current.limits
        self.batcher = Batcher(
            batch=limits.batch,
            max_requests=options.queue,
            max_bytes=limits.queue_bytes,
        )
        self.address = ""
        self._draining = asyncio.Event()
        self._health = health.HealthServicer()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen and answer; raises OSError if the address cannot be listened on."""
        options = self._options
        self._grpc = grpc.aio.server(
            # Those that may wait, those being computed, and some for health checks.
            maximum_concurrent_rpcs=options.queue + 64,
            options=[
                ("grpc.max_receive_message_length", self.current.limits.request_bytes),
                # Two servers on one port would share its requests in silence.
                ("grpc.so_reuseport", 0),
            ],
        )
        service = InferenceService(self.current, self.batcher, self._draining)
        add_InferenceServicer_to_server(service, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        await self._health.set(NAME, health_pb2.HealthCheckResponse.SERVING)
        names = (NAME, HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc)
        self.address = f"{options.host}:{self._listen()}"
        await self._grpc.start()
        work = (self.batcher.run(), self._watch(options.poll))
        self._tasks = [asyncio.create_task(task) for task in work]

    async def stop(self) -> None:
        """Refuse new requests, answer those under way, then end."""
        self._draining.set()
        await self._health.enter_graceful_shutdown()
        await self._grpc.stop(self._options.grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.batcher.close()

    def _listen(self) -> int:
        options = self._options
        address = f"{options.host}:{options.port}"
        try:
            if options.credentials is None:
                return int(self._grpc.add_insecure_port(address))
            credentials = options.credentials.for_server()
            return int(self._grpc.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None

    async def _watch(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                if await asyncio.to_thread(self.current.refresh):
                    self.batcher.batch = self.current.limits.batch
                    newest = self.current.servable
                    logger.info("now serving %s", newest.name)
            except Exception:
                # Whatever a half-understood file does, the model at hand still answers.
                logger.exception("looking for a newer model failed")


async def serve(source: Source, options: ServeOptions) -> None:
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
        "serving %s, on %s (%s)",
        server.current.servable.name,
        server.address,
        credentials.summary if credentials else "plain text",
    )
    await stop.wait()
    logger.info("stopping: answering what is under way")
    await server.stop()
    logger.info("stopped")
