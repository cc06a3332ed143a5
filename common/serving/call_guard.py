"""In front of every method: who calls, whether there is a place, what errors say.

All of it happens before a message is read, so that a refused caller costs no memory.
Every call runs through here, health and reflection included; services see only messages
that could be parsed, and need not care about callers that neither send nor take.
"""

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from common.inputs import InputError
from common.serving.batcher import Expired, Failed
from common.serving.callers import Caller, CallRefused, End, identify
from common.serving.calls import Call, Calls

logger = logging.getLogger("expertfleet.serving")

Context = grpc.aio.ServicerContext[Any, Any]

STATUS = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    Expired: grpc.StatusCode.DEADLINE_EXCEEDED,
    Failed: grpc.StatusCode.INTERNAL,
}

# gRPC gives the number of a code or the code.
_NAMES = {key: code.name for code in grpc.StatusCode for key in (code, code.value[0])}

LINGER = 1.0
"""Seconds the end of a call may take to get out before its connection is cut."""


class CallGuard(grpc.aio.ServerInterceptor):
    """Wraps the methods of all services.

    Parameters
    ----------
    refuse : callable
        Returns how a caller's calls end that may not call, else None.
    quotas : mapping of str to Calls
        By the full name of a service.
    others : Calls
        The quota of all other services together.
    cut : callable
        Ends the connection of a caller that does not even take the end of its call.
    note : callable
        Told of each call that has ended: its method, status code and seconds.

    Attributes
    ----------
    known : set of str
        Connections that a call was admitted on.
    """

    def __init__(
        self,
        refuse: Callable[[Caller], End | None],
        quotas: Mapping[str, Calls],
        others: Calls,
        cut: Callable[[str], None],
        note: Callable[[str, str, float], None] = lambda *_: None,
    ) -> None:
        self._note = note
        self._refuse, self._cut = refuse, cut
        self._quotas, self._others = quotas, others
        self.known: set[str] = set()

    async def intercept_service(
        self, continuation: Any, handler_call_details: Any
    ) -> Any:
        """Return a handler that admits a call before it lets it begin."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        service = handler_call_details.method.split("/")[1]
        calls = self._quotas.get(service, self._others)
        # A stream both ways on this side only: on the wire a single message is a stream
        # of one, and only of a stream a handler decides when it is read.
        return grpc.stream_stream_rpc_method_handler(
            partial(self._timed, handler_call_details.method, handler, calls),
            response_serializer=handler.response_serializer,
        )

    async def _timed(self, method: str, *given: Any) -> None:
        started, context, code = time.monotonic(), given[-1], ""
        try:
            await self._serve(*given)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED.name
            raise
        finally:
            seconds = time.monotonic() - started
            name = code or _NAMES.get(context.code(), grpc.StatusCode.OK.name)
            self._note(method.rpartition("/")[2], name, seconds)

    async def _serve(
        self, handler: Any, calls: Calls, _: AsyncIterator[bytes], context: Context
    ) -> None:
        caller = identify(context)
        if end := self._refuse(caller):
            await context.abort(*end)
        call = calls.call(caller)
        try:
            await calls.enter(call)
            self.known.add(caller.connection)
            messages = _parsed(handler, call, calls, context)
            async with contextlib.aclosing(messages):
                await _work(handler, call, messages, context)
            if handler.request_streaming:
                call.ending = call.drained
        except asyncio.CancelledError:
            if call.ending is None:  # the caller has gone
                raise
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        except grpc.aio.AbortError:
            raise
        except CallRefused as error:
            call.ending = error.code, str(error)
        except tuple(STATUS) as error:
            call.ending = STATUS[type(error)], str(error)
        except Exception:
            # gRPC would tell the caller what is in it.
            logger.exception("a call failed")
            call.ending = grpc.StatusCode.INTERNAL, "the server failed"
        finally:
            calls.leave(call)
        if call.ending is not None:
            await self._abort(caller, context, *call.ending)

    async def _abort(
        self, caller: Caller, context: Context, code: grpc.StatusCode, text: str
    ) -> None:
        ending = asyncio.ensure_future(context.abort(code, text))
        done, _ = await asyncio.wait({ending}, timeout=LINGER)
        if not done:
            # Behind answers that nobody takes, a status never leaves.
            self._cut(caller.connection)
        await ending


async def _parsed(
    handler: Any, call: Call, calls: Calls, context: Context
) -> AsyncGenerator[Any, None]:
    # Not by gRPC's iterator: it refers to itself, and so keeps the last message of a
    # call that is over until Python looks for such rings, hundreds of calls later.
    try:
        while (request := await context.read()) is not grpc.aio.EOF:
            if call.drained and handler.request_streaming:
                return
            if len(request) > calls.largest:
                raise CallRefused(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"the message is larger than {calls.largest} bytes",
                )
            message = handler.request_deserializer(request)
            del request  # not kept beside the message while that is worked on
            call.message_received()
            yield message
            del message
    except DecodeError:
        raise CallRefused(
            grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be parsed"
        ) from None
    except grpc.RpcError:  # the caller has gone
        return


async def _work(
    handler: Any, call: Call, messages: AsyncIterator[Any], context: Context
) -> None:
    """Run the method itself."""
    given: Any = messages
    if not handler.request_streaming and (given := await anext(messages, None)) is None:
        return
    kinds = "unary_unary", "unary_stream", "stream_unary", "stream_stream"
    [method] = [m for kind in kinds if (m := getattr(handler, kind))]
    answer = method(given, context)
    if inspect.isasyncgen(answer):
        async with contextlib.aclosing(answer):
            async for reply in answer:
                await _send(call, context, reply)
    elif (reply := await answer) is not None:
        await _send(call, context, reply)


async def _send(call: Call, context: Context, reply: Any) -> None:
    call.answer_begun()
    await context.write(reply)
    call.answer_sent()
