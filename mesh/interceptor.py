"""What surrounds every RPC that a service answers: deadline, errors to status, logs, counts. All four shapes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import cache
from typing import Any

import grpc
import structlog
from grpc import aio
from prometheus_client import Counter, Histogram

from mesh import deadline
from mesh.errors import Broken, Expired, MeshError, to_status
from mesh.telemetry import HANDLED, SECONDS

log = structlog.get_logger()
ROUNDING, TRAVEL_S = 0.02, 0.05
Context = aio.ServicerContext[Any, Any]


class Surround(aio.ServerInterceptor):
    """Wraps every handler. MeshErrors become rich statuses; anything else is logged and becomes INTERNAL."""

    def __init__(self) -> None:
        self._wrapped: dict[Any, Any] = {}  # by method and handler: a server has few, and makes them once

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wraps the method's handler, whichever of the four shapes it has; None is UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        known = (handler_call_details.method, handler)
        wrapped = self._wrapped.get(known)
        if wrapped is None:
            wrapped = self._wrapped[known] = _wrap(*known)
        return wrapped


def _wrap(method: str, handler: Any) -> Any:
    streams_in = handler.request_streaming
    if handler.response_streaming:
        make: Any = grpc.stream_stream_rpc_method_handler if streams_in else grpc.unary_stream_rpc_method_handler
        wrapped: Any = _stream(method, handler.stream_stream or handler.unary_stream)
    else:
        make = grpc.stream_unary_rpc_method_handler if streams_in else grpc.unary_unary_rpc_method_handler
        wrapped = _unary(method, handler.stream_unary or handler.unary_unary)
    return make(wrapped, handler.request_deserializer, handler.response_serializer)


def _unary(method: str, inner: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        served = _Served(method, context)
        try:
            response = await inner(request, context)
        except BaseException as error:
            await served.failed(error)
            raise
        served.count("OK")
        return response

    return call


def _stream(method: str, inner: Callable[[Any, Context], Any]) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        served = _Served(method, context)
        try:
            responses = inner(request, context)
            if hasattr(responses, "__aiter__"):
                async with aclosing(responses):  # a client that leaves frees what the handler holds at once
                    async for response in responses:
                        yield response
            else:  # a coroutine that writes to the context, as grpc_health's Watch is
                await responses
        except BaseException as error:
            await served.failed(error)
            raise
        served.count("OK")

    return call


@cache
def _metrics(method: str, code: str) -> tuple[Counter, Histogram]:
    """Looking a label up costs more than counting; our methods and codes are few."""
    _, service, name = method.split("/")
    return HANDLED.labels(service, name, code), SECONDS.labels(service, name)


class _Served:
    """One call, from its first moment to its status."""

    def __init__(self, method: str, context: Context) -> None:
        self._method, self._context = method, context
        self._began_s = time.perf_counter()
        self._given_s: float | None = context.time_remaining()
        deadline.set_left(self._given_s)

    def count(self, code: str) -> None:
        counter, seconds = _metrics(self._method, code)
        counter.inc()
        seconds.observe(time.perf_counter() - self._began_s)

    async def failed(self, error: BaseException) -> None:
        """Ends the call with our status; returns when the error says it all itself."""
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self.count("DEADLINE_EXCEEDED" if self._is_late() else "CANCELLED")
            return
        if isinstance(error, aio.AbortError):
            self.count(self._context.code().name)
            return
        known = error if isinstance(error, MeshError) else self._unforeseen(error)
        self.count(known.code.name)
        status = to_status(known)
        await self._context.abort(status.code, status.details, status.trailing_metadata)

    def _is_late(self) -> bool:
        """The client's clock ends a call a moment before ours: its timeout travels, rounded up."""
        spent_s = time.perf_counter() - self._began_s
        return self._given_s is not None and spent_s >= self._given_s * (1 - ROUNDING) - TRAVEL_S

    def _unforeseen(self, error: BaseException) -> MeshError:
        if isinstance(error, TimeoutError):
            return Expired("the deadline passed")
        log.error("unforeseen error", method=self._method, exc_info=error)
        return Broken(f"{type(error).__name__} in {self._method}; the service's log has the traceback")
