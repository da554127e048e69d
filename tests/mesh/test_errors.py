"""Errors over the wire: what a service raises, its caller catches."""

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status

from mesh.clients.channel import unary
from mesh.errors import (
    DOMAIN,
    TABLE,
    Broken,
    DataLoss,
    Expired,
    InvalidRequest,
    MeshError,
    NoRoom,
    NotFound,
    UnknownStatus,
    Unreachable,
    Violation,
    from_rpc,
)
from tests.mesh.edge import Context, Edge, Shape

TRIES = 5  # gRPC loses a status now and then, if the client still writes when it comes


async def over_the_wire(edge: Edge, error: BaseException, shape: Shape = Shape.UNARY_UNARY) -> MeshError:
    """The error as the caller gets it."""

    async def behave(context: Context) -> None:
        raise error

    edge.behave = behave
    for _ in range(TRIES):
        with pytest.raises(MeshError) as caught:
            await edge.call(shape)
        if caught.value.reason != "CALL_ENDED":
            break
    return caught.value


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("kind", TABLE)
async def test_an_error_is_the_same_on_both_sides(edge: Edge, kind: type[MeshError], shape: Shape) -> None:
    sent = kind("it is so", retry_after_s=2.5, violations=(Violation("a.b", "too long"),), metadata={"model": "m"})
    got = await over_the_wire(edge, sent, shape)
    assert type(got) is kind
    assert (got.message, got.reason, got.retry_after_s) == ("it is so", kind.default_reason, 2.5)
    assert (got.violations, got.metadata) == (sent.violations, sent.metadata)


@pytest.mark.parametrize("kind", TABLE)
def test_no_two_errors_look_alike_on_the_wire(kind: type[MeshError]) -> None:
    assert [k for k in TABLE if (k.code, k.default_reason) == (kind.code, kind.default_reason)] == [kind]


async def test_what_was_not_said_is_not_there(edge: Edge) -> None:
    got = await over_the_wire(edge, NotFound("gone"))
    assert (got.retry_after_s, got.violations, got.metadata) == (None, (), {})


async def test_a_reason_of_its_own_comes_through(edge: Edge) -> None:
    got = await over_the_wire(edge, NoRoom("full", reason="QUEUE_FULL", retry_after_s=0.0))
    assert (type(got), got.reason, got.retry_after_s) == (NoRoom, "QUEUE_FULL", 0.0)


@pytest.mark.parametrize("message", ["größer als ∞ 🐦", "two\nlines\ttab", "100 % of %20", "", " "])
async def test_any_text_may_be_a_message(edge: Edge, message: str) -> None:
    got = await over_the_wire(edge, NotFound(message))
    assert (type(got), got.reason) == (NotFound, "NOT_FOUND")
    assert got.message == (message or "edge answered NOT_FOUND")


async def test_a_message_too_long_for_trailers_is_cut_instead_of_losing_the_status(edge: Edge) -> None:
    name = "x" * 100_000
    sent = InvalidRequest(
        f"no {name!r}", violations=tuple(Violation("f", name) for _ in range(20)), metadata={"model": name}
    )
    got = await over_the_wire(edge, sent)
    assert type(got) is InvalidRequest
    assert got.message.startswith("no 'xxx")
    assert got.violations[0].field == "f"


async def test_a_client_of_another_language_finds_googles_details(edge: Edge) -> None:
    async def behave(context: Context) -> None:
        raise InvalidRequest.field("prompt", "must not be empty", reason="EMPTY_PROMPT")

    edge.behave = behave
    with pytest.raises(aio.AioRpcError) as caught:
        await edge.raw(Shape.UNARY_UNARY)
    status = rpc_status.from_call(caught.value)
    assert isinstance(status, status_pb2.Status)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("EMPTY_PROMPT", DOMAIN)
    assert [(v.field, v.description) for v in bad.field_violations] == [("prompt", "must not be empty")]


async def test_a_server_that_is_not_there_is_unreachable_and_worth_another_try() -> None:
    async with aio.insecure_channel("127.0.0.1:1") as channel:
        ask: Any = channel.unary_unary("/test.Edge/UnaryUnary")
        with pytest.raises(Unreachable) as caught:
            await unary(ask(b""), "worker at 127.0.0.1:1")
    error = caught.value
    assert (error.reason, error.retry_after_s) == ("UNREACHABLE", 1.0)
    assert "worker at 127.0.0.1:1 cannot be reached" in error.message


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.DATA_LOSS, DataLoss),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Expired),
        (grpc.StatusCode.UNAUTHENTICATED, UnknownStatus),
    ],
)
async def test_a_status_without_our_details_becomes_the_error_of_its_code(
    edge: Edge, code: grpc.StatusCode, kind: type[MeshError]
) -> None:
    async def behave(context: Context) -> None:
        await context.abort(code, "by somebody else")

    edge.behave = behave
    with pytest.raises(MeshError, match="by somebody else") as caught:
        await edge.call(Shape.UNARY_UNARY)
    assert type(caught.value) is kind


def test_a_call_whose_status_was_lost_has_broken_off_and_is_no_fault_of_the_peer() -> None:
    met = aio.AioRpcError(grpc.StatusCode.INTERNAL, aio.Metadata(), aio.Metadata(), "Internal error from Core")
    assert isinstance(from_rpc(met, "store at here:1"), Unreachable)
    ended = aio.AioRpcError(grpc.StatusCode.CANCELLED, aio.Metadata(), aio.Metadata(), "CANCELLED")
    assert from_rpc(ended, "scheduler at here:1").reason == "CALL_ENDED"
    own = aio.AioRpcError(grpc.StatusCode.INTERNAL, aio.Metadata(), aio.Metadata(), "a bug")
    assert isinstance(from_rpc(own, "store at here:1"), Broken)
