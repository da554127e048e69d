"""What surrounds every RPC: errors, logs, counts, cleaning up."""

import asyncio

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from mesh.errors import Broken, Expired, MeshError, NoRoom, NotFound
from tests.mesh.edge import SERVICE, Context, Edge, Shape

WAIT_S = 60.0
STREAMS = [Shape.UNARY_STREAM, Shape.STREAM_STREAM, Shape.WRITTEN_STREAM]


async def nothing(context: Context) -> None:
    """All is well."""


def counted(shape: Shape | str, code: str, service: str = SERVICE) -> float:
    """RPCs of one method that ended so, in this process."""
    labels = {"grpc_service": service, "grpc_method": str(shape), "grpc_code": code}
    return REGISTRY.get_sample_value("grpc_server_handled_total", labels) or 0.0


async def becomes(count: float, shape: Shape | str, code: str, service: str = SERVICE) -> None:
    """A counter tells nobody that it has changed."""
    async with asyncio.timeout(WAIT_S):
        while counted(shape, code, service) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("shape", Shape)
async def test_a_call_that_goes_well_is_left_alone_and_counted(edge: Edge, shape: Shape) -> None:
    edge.behave, before = nothing, counted(shape, "OK")
    answers = await edge.call(shape)
    assert answers == ([b"begun", b"done"] if shape in STREAMS else [b"done"])
    await becomes(before + 1, shape, "OK")


@pytest.mark.parametrize("shape", Shape)
async def test_an_unforeseen_error_is_internal_for_the_caller_and_a_traceback_for_the_log(
    edge: Edge, shape: Shape
) -> None:
    async def behave(context: Context) -> None:
        raise ZeroDivisionError("secret")

    edge.behave, before = behave, counted(shape, "INTERNAL")
    with capture_logs() as logs, pytest.raises(Broken) as caught:
        await edge.call(shape)
    assert "secret" not in caught.value.message
    assert "ZeroDivisionError" in caught.value.message
    (line,) = logs
    assert (line["event"], line["method"]) == ("unforeseen error", f"/{SERVICE}/{shape}")
    assert isinstance(line["exc_info"], ZeroDivisionError)
    assert counted(shape, "INTERNAL") == before + 1


@pytest.mark.parametrize("shape", Shape)
async def test_an_error_of_ours_is_counted_by_its_code_and_not_logged(edge: Edge, shape: Shape) -> None:
    async def behave(context: Context) -> None:
        raise NoRoom("full")

    edge.behave, before = behave, counted(shape, "RESOURCE_EXHAUSTED")
    with capture_logs() as logs, pytest.raises(NoRoom):
        await edge.call(shape)
    assert (logs, counted(shape, "RESOURCE_EXHAUSTED")) == ([], before + 1)


@pytest.mark.parametrize("shape", STREAMS)
async def test_what_a_stream_said_before_its_error_arrives(edge: Edge, shape: Shape) -> None:
    async def behave(context: Context) -> None:
        raise NotFound("gone")

    edge.behave, heard = behave, []

    async def listen() -> None:
        async for message in edge.open(shape):
            heard.append(message)

    with pytest.raises(NotFound):
        await listen()
    assert heard == [b"begun"]


@pytest.mark.parametrize("shape", Shape)
async def test_a_client_that_leaves_ends_the_handler_and_counts_as_cancelled(edge: Edge, shape: Shape) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def behave(context: Context) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    edge.behave, before = behave, counted(shape, "CANCELLED")
    client = asyncio.create_task(edge.call(shape))
    async with asyncio.timeout(WAIT_S):
        await began.wait()
        client.cancel()
        await ended.wait()
    await becomes(before + 1, shape, "CANCELLED")
    await asyncio.wait([client])


@pytest.mark.parametrize("shape", Shape)
async def test_a_deadline_that_passes_ends_the_handler_and_counts_as_that(edge: Edge, shape: Shape) -> None:
    ended = asyncio.Event()

    async def behave(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    edge.behave, before = behave, counted(shape, "DEADLINE_EXCEEDED")
    with pytest.raises(Expired):
        await edge.call(shape, timeout=1.0)  # it has begun by then, on a busy machine too
    async with asyncio.timeout(WAIT_S):
        await ended.wait()
    await becomes(before + 1, shape, "DEADLINE_EXCEEDED")


async def test_a_timeout_inside_the_handler_is_a_deadline_too(edge: Edge) -> None:
    async def behave(context: Context) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    edge.behave = behave
    with pytest.raises(Expired, match="the deadline passed"):
        await edge.call(Shape.UNARY_UNARY)


async def test_a_handler_that_aborts_by_itself_is_counted_by_the_code_it_chose(edge: Edge) -> None:
    before = counted("Check", "NOT_FOUND", "grpc.health.v1.Health")
    stub = health_pb2_grpc.HealthStub(edge.channel)
    with pytest.raises(aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await becomes(before + 1, "Check", "NOT_FOUND", "grpc.health.v1.Health")


async def test_health_can_be_watched(edge: Edge) -> None:
    watching = health_pb2_grpc.HealthStub(edge.channel).Watch(health_pb2.HealthCheckRequest(service="s"))
    statuses = aiter(watching)
    unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    async with asyncio.timeout(WAIT_S):
        assert (await anext(statuses)).status == unknown
        await edge.health.set("s", health_pb2.HealthCheckResponse.SERVING)
        assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.SERVING
    watching.cancel()


async def test_a_method_that_does_not_exist_is_unimplemented(edge: Edge) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await edge.raw("NoSuch")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_errors_do_not_outlive_their_call(edge: Edge) -> None:
    errors: list[MeshError] = [NotFound("first"), NotFound("second")]

    async def behave(context: Context) -> None:
        raise errors.pop(0)

    edge.behave = behave
    for message in ("first", "second"):
        with pytest.raises(NotFound, match=message):
            await edge.call(Shape.UNARY_STREAM)
