"""The gRPC service: messages to predictions.

Who computes when is the batcher's; which model is current is the server's; who may call
at all, and which status a failure is, is the guard's.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import numpy as np
import torch

from common.inputs import InputError, prepare
from common.serving import inference_pb2 as pb
from common.serving.batcher import Batcher, Expired
from common.serving.inference_pb2_grpc import InferenceServicer
from common.serving.memory import STREAM_WINDOW, ServingLimits
from common.serving.servable import Predictions, Servable
from common.serving.tensors import decode, encode
from common.task import TextTask

NAME = pb.DESCRIPTOR.services_by_name["Inference"].full_name

logger = logging.getLogger("expertfleet.serving")

Context = grpc.aio.ServicerContext[Any, Any]
Outstanding = asyncio.Queue["asyncio.Future[pb.PredictResponse] | None"]


class InferenceService(InferenceServicer):
    """Answers with whatever model is current when a request arrives.

    Parameters
    ----------
    current : callable
        Returns the model and its limits.
    batcher : Batcher
    """

    def __init__(
        self, current: Callable[[], tuple[Servable, ServingLimits]], batcher: Batcher
    ) -> None:
        self._current, self._batcher = current, batcher

    async def Predict(
        self, request: pb.PredictRequest, context: Context
    ) -> pb.PredictResponse:
        """Answer one batch of samples."""
        return await (await self._queue(request, context))

    async def PredictStream(
        self, requests: AsyncIterator[pb.PredictRequest], context: Context
    ) -> AsyncIterator[pb.PredictResponse]:
        """Answer batch after batch, in order, several under way at a time."""
        outstanding: Outstanding = asyncio.Queue(STREAM_WINDOW)
        reader = asyncio.create_task(self._read(requests, context, outstanding))
        try:
            while (answer := await outstanding.get()) is not None:
                yield await answer
        finally:
            # One at a time: the reader may be filling the queue while it is emptied.
            await _cancel(reader)
            while not outstanding.empty():
                if (answer := outstanding.get_nowait()) is not None:
                    await _cancel(answer)

    async def ModelInfo(
        self, request: pb.ModelInfoRequest, context: Context
    ) -> pb.ModelInfoResponse:
        """Say what is being served."""
        del request, context
        servable, limits = self._current()
        task = servable.task
        return pb.ModelInfoResponse(
            model=_version(servable),
            dtype=task.model_kind.upper(),
            input_shape=task.input_shape,
            num_classes=task.num_classes,
            experts=servable.experts,
            model_bytes=servable.nbytes,
            max_samples=limits.request_samples,
            max_batch=limits.batch,
            kind=task.kind,
            class_names=task.classes,
            task=task.to_json(),
        )

    async def _queue(
        self, request: pb.PredictRequest, context: Context
    ) -> Coroutine[Any, Any, pb.PredictResponse]:
        """Prepare a request and queue it; return what waits for its answer.

        Who has to wait for room in the queue reads no further message meanwhile.
        """
        servable, limits = self._current()
        # Before anything is decoded: the caller may have gone while this waited.
        left = context.time_remaining()
        if left is not None and left <= 0:
            raise Expired("the deadline has passed")
        deadline = float("inf") if left is None else time.monotonic() + left
        x = _prepared(request, servable, limits.request_samples)
        return _answer(servable, await self._batcher.submit(servable, x, deadline))

    async def _read(
        self,
        requests: AsyncIterator[pb.PredictRequest],
        context: Context,
        outstanding: Outstanding,
    ) -> None:
        """Start a task per request until the caller has finished."""
        try:
            async for request in requests:
                answer = asyncio.create_task(await self._queue(request, context))
                try:
                    await outstanding.put(answer)
                except asyncio.CancelledError:
                    answer.cancel()
                    raise
        except Exception as error:  # told in its turn, after the answers before it
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            await outstanding.put(failed)
        await outstanding.put(None)


def read_tokeniser(servable: Servable) -> None:
    """Read what makes token ids of texts now, and not while a request waits."""
    if not isinstance(servable.task, TextTask):
        return
    try:
        servable.encode([""])
    except InputError as error:
        logger.warning("only token ids are answered: %s", error)


def _prepared(
    request: pb.PredictRequest, servable: Servable, most: int
) -> torch.Tensor:
    """Return what a request asks about, as the model takes it."""
    if request.HasField("x"):
        if request.texts:
            raise InputError("x and texts are both there: expected one of them")
        array = decode(request.x, "x")
        _check_count(len(array) if array.ndim else 0, "x.shape", most)
    elif request.texts:
        _check_count(len(request.texts), "texts", most)
        array = servable.encode(request.texts)
    else:
        raise InputError("x is missing")
    return torch.from_numpy(prepare(servable.task, array))


def _check_count(samples: int, name: str, most: int) -> None:
    if samples > most:
        raise InputError(
            f"{name} has {samples} samples: at most {most} go into one request"
        )


async def _answer(
    servable: Servable, queued: "asyncio.Future[Predictions]"
) -> pb.PredictResponse:
    found = await queued
    finite = np.isfinite(found.probabilities).all(1)
    if not finite.all():
        raise InputError(
            f"x is too large for the model in sample {finite.argmin()}: the answer "
            "is not a number"
        )
    return pb.PredictResponse(
        probabilities=encode(found.probabilities),
        classes=found.classes.tolist(),
        experts=found.experts.tolist(),
        model=_version(servable),
        class_names=servable.names_of(found.classes.tolist()),
    )


async def _cancel(task: "asyncio.Future[Any]") -> None:
    """Cancel a task and wait until it is over, whatever its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _version(servable: Servable) -> pb.ModelVersion:
    return pb.ModelVersion(run=servable.run, round=servable.server_round)
