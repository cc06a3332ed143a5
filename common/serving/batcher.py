"""Micro-batching: requests that wait while one batch is computed form the next one.

No request waits for a batch to fill: alone it is computed at once, and under load
batches grow by themselves. The queue is bounded in requests and in bytes; a request
whose deadline has passed, or whose caller has gone, is dropped before it is computed.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from math import inf

import torch

from common.serving.servable import Predictions, Servable

logger = logging.getLogger("expertfleet.serving")


class Failed(RuntimeError):
    """The model raised an error."""


class Expired(TimeoutError):
    """The deadline passed before the answer was computed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    servable: Servable
    x: torch.Tensor
    deadline: float
    future: asyncio.Future[Predictions]

    @property
    def nbytes(self) -> int:
        return self.x.numel() * self.x.element_size()


class Batcher:
    """A queue and one thread that computes; used from one event loop.

    Parameters
    ----------
    batch : int
        Samples computed together; 1 turns batching off.
    max_requests, max_bytes : int
        Requests that may wait; bytes of the samples waiting and being computed.

    Attributes
    ----------
    batches, samples : int
        Computed so far.
    """

    def __init__(self, *, batch: int, max_requests: int, max_bytes: int) -> None:
        self.batch = batch
        self.batches = self.samples = 0
        self._max_requests, self.max_bytes = max_requests, max_bytes
        self._jobs: deque[_Job] = deque()
        self._bytes = 0
        self._arrived, self._left = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "predict")

    async def submit(
        self, servable: Servable, x: torch.Tensor, deadline: float = inf
    ) -> asyncio.Future[Predictions]:
        """Queue prepared samples, once there is room, and return what to wait for.

        Parameters
        ----------
        servable : Servable
            Answers, even if a newer one comes while the request waits.
        x : Tensor, shape (B, *input_shape)
        deadline : float
            On the clock of :func:`time.monotonic`.

        Raises
        ------
        Expired, Failed
            By the future: the deadline passed first; the model raised an error, which
            is logged.
        """
        future: asyncio.Future[Predictions] = asyncio.get_running_loop().create_future()
        job = _Job(servable=servable, x=x, deadline=deadline, future=future)
        while not self._fits(job):
            self._left.clear()
            await self._left.wait()
        self._jobs.append(job)
        self._bytes += job.nbytes
        self._arrived.set()
        return future

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._jobs)

    @property
    def nbytes(self) -> int:
        """Bytes of the samples that wait or are being computed."""
        return self._bytes

    def _fits(self, job: _Job) -> bool:
        room = self.max_bytes - self._bytes
        return len(self._jobs) < self._max_requests and job.nbytes <= room

    async def run(self) -> None:
        """Compute batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            await self._gather()
            jobs = self._next()
            if not jobs:
                self._arrived.clear()
                continue
            try:
                work = loop.run_in_executor(self._thread, _compute, jobs, self.batch)
                answers = await work
            except Exception:  # each caller hears of it; the next go on
                logger.exception("the model failed")
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(Failed("the model failed"))
            else:
                self.batches += 1
                self.samples += sum(len(job.x) for job in jobs)
                for job, predictions in zip(jobs, answers, strict=True):
                    if not job.future.done():
                        job.future.set_result(predictions)
            self._release(jobs)

    async def _gather(self) -> None:
        """Let requests that are here already, but not in the queue yet, join the batch.

        Their handlers are ready to run: this waits for work, never for time.
        """
        waiting = 0
        while waiting < len(self._jobs) < self.batch:
            waiting = len(self._jobs)
            await asyncio.sleep(0)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> list[_Job]:
        """Take the next batch off the queue: one model, up to ``batch`` samples."""
        jobs: list[_Job] = []
        samples, now = 0, time.monotonic()
        self._left.set()  # who waits may take the place of those that leave now
        while self._jobs:
            job = self._jobs[0]
            if job.future.done() or job.deadline <= now:
                self._release([self._jobs.popleft()])
                if not job.future.done():
                    job.future.set_exception(Expired("the deadline has passed"))
                continue
            fits = samples + len(job.x) <= self.batch
            if jobs and (not fits or job.servable is not jobs[0].servable):
                break
            jobs.append(self._jobs.popleft())
            samples += len(job.x)
        return jobs

    def _release(self, jobs: Sequence[_Job]) -> None:
        self._bytes -= sum(job.nbytes for job in jobs)
        self._left.set()


def _compute(jobs: Sequence[_Job], batch: int) -> list[Predictions]:
    x = jobs[0].x if len(jobs) == 1 else torch.cat([job.x for job in jobs])
    whole = jobs[0].servable.answer(x, batch)
    ends = list(accumulate(len(job.x) for job in jobs))
    spans = zip([0, *ends], ends, strict=False)
    return [Predictions._make(part[a:b] for part in whole) for a, b in spans]
