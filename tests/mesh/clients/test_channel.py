"""Channels: one an address, for as long as somebody lives there or something runs on it."""

import asyncio
from contextlib import aclosing

import grpc

from mesh.clients.channel import Channels, stream
from tests.mesh.edge import SERVICE, Context, Edge, Shape
from tests.mesh.edge import edge as serving

WAIT_S = 60.0


async def test_a_channel_to_where_nobody_lives_any_more_is_closed_and_the_others_are_not(edge: Edge) -> None:
    channels = Channels()
    async with serving() as leaving:
        gone, stays = channels.to(leaving.address), channels.to(edge.address)
        await asyncio.gather(gone.channel_ready(), stays.channel_ready())
    async with asyncio.timeout(WAIT_S):
        while (state := gone.get_state()) is grpc.ChannelConnectivity.READY:
            await gone.wait_for_state_change(state)
    await channels.close_dead({edge.address})
    assert gone.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    assert channels.to(leaving.address) is not gone
    assert channels.to(edge.address) is stays
    await channels.close()


async def test_what_runs_on_a_channel_to_one_that_has_lost_its_lease_goes_on(edge: Edge) -> None:
    goes_on, channels = asyncio.Event(), Channels()

    async def behave(context: Context) -> None:
        await goes_on.wait()

    edge.behave = behave
    call = channels.to(edge.address).unary_stream(f"/{SERVICE}/{Shape.UNARY_STREAM}")(b"ask")
    async with asyncio.timeout(WAIT_S), aclosing(stream(call, "edge")) as answers:
        assert await anext(answers) == b"begun"
        await channels.close_dead(set())
        goes_on.set()
        assert await anext(answers) == b"done"
    await channels.close()
