"""The gRPC service: messages to predictions, and every failure to its status.

Who computes when is the batcher's; which model is current is the server's.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import torch

from common.inputs import InputError
from common.serving import inference_pb2 as pb
from common.serving.batcher import Batcher, Expired, Failed, Overloaded
from common.serving.budget import Limits
from common.serving.inference_pb2_grpc import InferenceServicer
from common.serving.servable import Servable
from common.serving.tensors import decode, encode

NAME = pb.DESCRIPTOR.services_by_name["Inference"].full_name

STREAM_WINDOW = 8
"""Requests of one stream under way; the next is not read before one is answered."""

STATUS = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Expired: grpc.StatusCode.DEADLINE_EXCEEDED,
    Failed: grpc.StatusCode.INTERNAL,
}

Context = grpc.aio.ServicerContext[Any, Any]
Outstanding = asyncio.Queue["asyncio.Task[pb.PredictResponse] | None"]


class InferenceService(InferenceServicer):
    """Answers with whatever model is current when a request arrives.

    Parameters
    ----------
    current : callable
        Returns the model and its limits.
    batcher : Batcher
    draining : asyncio.Event
        Set when the server stops: open streams end once their requests are answered.
    """

    def __init__(
        self,
        current: Callable[[], tuple[Servable, Limits]],
        batcher: Batcher,
        draining: asyncio.Event,
    ) -> None:
        self._current, self._batcher, self._draining = current, batcher, draining

    async def Predict(
        self, request: pb.PredictRequest, context: Context
    ) -> pb.PredictResponse:
        """Answer one batch of samples."""
        try:
            return await self._answer(request, context)
        except tuple(STATUS) as error:
            await context.abort(STATUS[type(error)], str(error))

    async def PredictStream(
        self, requests: AsyncIterator[pb.PredictRequest], context: Context
    ) -> AsyncIterator[pb.PredictResponse]:
        """Answer batch after batch, in order, several under way at a time."""
        outstanding: Outstanding = asyncio.Queue(STREAM_WINDOW)
        reader = asyncio.create_task(self._read(requests, context, outstanding))
        end = None
        try:
            while (task := await outstanding.get()) is not None:
                yield await task
            if self._draining.is_set():
                end = grpc.StatusCode.UNAVAILABLE, "the server is stopping"
        except tuple(STATUS) as error:
            end = STATUS[type(error)], str(error)
        finally:
            # One at a time: the reader may be filling the queue while it is emptied.
            await _cancel(reader)
            while not outstanding.empty():
                if (task := outstanding.get_nowait()) is not None:
                    await _cancel(task)
        if end is not None:
            await context.abort(*end)

    async def ModelInfo(
        self, request: pb.ModelInfoRequest, context: Context
    ) -> pb.ModelInfoResponse:
        """Say what is being served."""
        del request, context
        servable, limits = self._current()
        return pb.ModelInfoResponse(
            model=_version(servable),
            dtype=servable.inputs.kind.upper(),
            input_shape=servable.inputs.input_shape,
            num_classes=servable.inputs.num_classes,
            experts=servable.experts,
            model_bytes=servable.nbytes,
            max_samples=limits.request_samples,
            max_batch=limits.batch,
        )

    async def _answer(
        self, request: pb.PredictRequest, context: Context, *, patient: bool = False
    ) -> pb.PredictResponse:
        servable, limits = self._current()
        # Before anything is decoded: the caller may have gone while this waited.
        left = context.time_remaining()
        if left is not None and left <= 0:
            raise Expired("the deadline has passed")
        deadline = float("inf") if left is None else time.monotonic() + left
        if not request.HasField("x"):
            raise InputError("x is missing")
        array = decode(request.x, "x")
        if array.ndim and len(array) > limits.request_samples:
            raise InputError(
                f"x.shape has {len(array)} samples: at most {limits.request_samples} "
                "go into one request"
            )
        x = torch.from_numpy(servable.inputs.prepare(array))
        found = await self._batcher.submit(servable, x, deadline, patient=patient)
        return pb.PredictResponse(
            probabilities=encode(found.probabilities),
            classes=found.classes.tolist(),
            experts=found.experts.tolist(),
            model=_version(servable),
        )

    async def _read(
        self,
        requests: AsyncIterator[pb.PredictRequest],
        context: Context,
        outstanding: Outstanding,
    ) -> None:
        """Start a task per request until the caller, or the server, has finished."""
        stop = asyncio.create_task(self._draining.wait())
        try:
            while not stop.done():
                following = asyncio.create_task(_next(requests))
                try:
                    await asyncio.wait(
                        {following, stop}, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    if not following.done():
                        await _cancel(following)
                if following.cancelled() or (request := following.result()) is None:
                    break
                answer = self._answer(request, context, patient=True)
                await outstanding.put(asyncio.create_task(answer))
        finally:
            stop.cancel()
        await outstanding.put(None)


async def _next(
    requests: AsyncIterator[pb.PredictRequest],
) -> pb.PredictRequest | None:
    """Return the next request, None after the last or when the caller has gone."""
    try:
        return await anext(requests, None)
    except grpc.RpcError:
        return None


async def _cancel(task: "asyncio.Task[Any]") -> None:
    """Cancel a task and wait until it is over, whatever its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _version(servable: Servable) -> pb.ModelVersion:
    return pb.ModelVersion(run=servable.run, round=servable.server_round)
