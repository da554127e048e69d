"""What a client says on a stream ends with it, whoever ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import grpc
import pytest
from grpc import aio

from mesh.clients.channel import connect, stream
from mesh.clients.outgoing import Outgoing
from mesh.errors import MeshError


async def echo(requests: AsyncIterator[bytes], context: "aio.ServicerContext[bytes, bytes]") -> AsyncIterator[bytes]:
    """Until it is told to fail."""
    async for request in requests:
        if request == b"fail":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "told to")
        yield request


@asynccontextmanager
async def talking() -> AsyncIterator[tuple[Outgoing[bytes], AsyncIterator[bytes]]]:
    """A client's words to an echo, and what comes back."""
    server = aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("s", {"Echo": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    outgoing = Outgoing(b"first")
    async with connect(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream("/s/Echo")(outgoing.messages())
        outgoing.end_with(call)
        async with aclosing(stream(call, "the echo")) as answers:
            yield outgoing, answers
    await server.stop(0)


def speaking() -> set[asyncio.Task[object]]:
    """gRPC's tasks that take what a client says."""
    return {task for task in asyncio.all_tasks() if "_consume_request_iterator" in repr(task.get_coro())}


async def test_everything_is_said_in_order_until_nothing_more_is() -> None:
    async with talking() as (outgoing, answers):
        outgoing.say(b"second")
        outgoing.finish()
        assert [answer async for answer in answers] == [b"first", b"second"]


async def test_nobody_waits_for_what_is_said_next_once_the_server_has_ended_the_stream() -> None:
    async with talking() as (outgoing, answers):
        assert await anext(answers) == b"first"
        saying = speaking()
        assert len(saying) == 1
        outgoing.say(b"fail")
        with pytest.raises(MeshError, match="told to"):
            await anext(answers)
        await asyncio.wait(saying, timeout=30)
        assert not speaking()


async def test_nobody_does_once_the_client_has_left() -> None:
    async with talking() as (_, answers):
        assert await anext(answers) == b"first"
        saying = speaking()
    await asyncio.wait(saying, timeout=30)
    assert not speaking()
