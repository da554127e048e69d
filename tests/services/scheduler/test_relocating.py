"""Moves of places that another leader gave, and moves that a leader leaves behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from mesh.clients.channel import Channels
from mesh.clients.holding import HoldingClient
from mesh.errors import MeshError
from mesh.moves import Relocation
from mesh.requests import HeldPlace, MoveKind
from tests.services.scheduler.conftest import WAIT_S, Bench, ready

Told = tuple[int, Relocation]


def held(bench: Bench, number: int, worker_id: str) -> HeldPlace:
    """A place on the replica of m there, of the request "r" and its number."""
    return HeldPlace(number, worker_id, bench.fence(worker_id), "m", "m@1", request_id=f"r{number}")


class Gateway:
    """One that holds places which another scheduler gave."""

    def __init__(self, bench: Bench, channels: Channels, *places: HeldPlace) -> None:
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.line = HoldingClient(channels, bench.address, "g.1", places)

    async def run(self) -> None:
        """Hears of relocations until the scheduler ends the line."""
        await self.line.run(lambda number, relocation: self.told.put_nowait((number, relocation)))

    async def relocated(self) -> Told:
        """The next."""
        async with asyncio.timeout(WAIT_S):
            return await self.told.get()


@asynccontextmanager
async def gateway(bench: Bench, *places: HeldPlace) -> AsyncIterator[Gateway]:
    """Its line is open until the block ends."""
    channels = Channels()
    one = Gateway(bench, channels, *places)
    task = asyncio.create_task(one.run())
    try:
        await bench.asked_to_hold(len(places))
        yield one
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, MeshError):
            await task
        await channels.close()


async def where(bench: Bench) -> dict[str, tuple[str, str]]:
    """Of all requests: where they are, and where they go."""
    found = await bench.asks.requests(bench.address)
    return {one.request_id: (one.worker_id, one.to_worker_id) for one in found}


async def until(bench: Bench, **places: tuple[str, str]) -> None:
    """Waits until requests are there."""
    async with asyncio.timeout(WAIT_S):
        while await where(bench) != places:  # noqa: ASYNC110  nothing tells of them
            await asyncio.sleep(0.002)


async def test_a_place_that_another_leader_gave_moves_on_its_gateways_line(bench: Bench) -> None:
    await ready(bench, "w1", slots=2)
    await ready(bench, "w2", slots=1)
    async with gateway(bench, held(bench, 4, "w1"), held(bench, 7, "w1")) as one:
        asked = asyncio.create_task(bench.asks.move(bench.address, "r7", "w2", MoveKind.TOKENS))
        number, told = await one.relocated()
        assert (number, told.target.worker_id, told.kind) == (7, "w2", MoveKind.TOKENS)
        assert await where(bench) == {"r4": ("w1", ""), "r7": ("w1", "w2")}
        await bench.moved(told)
        assert (await asked).from_worker_id == "w1"
        assert await where(bench) == {"r4": ("w1", ""), "r7": ("w2", "")}
        one.line.tell(released=[4])
        await until(bench, r7=("w2", ""))


async def test_a_line_that_ends_gives_back_what_moves_on_it_at_both_ends(bench: Bench) -> None:
    await ready(bench, "w1", slots=1)
    await ready(bench, "w2", slots=1)
    async with gateway(bench, held(bench, 0, "w1")) as one:
        asked = asyncio.create_task(bench.asks.move(bench.address, "r0", "w2", None))
        await one.relocated()
    with pytest.raises(MeshError) as caught:
        await asked
    assert caught.value.reason == "REQUEST_ENDED"
    assert {(await bench.assign().placed()).worker_id for _ in range(2)} == {"w1", "w2"}


async def test_a_move_that_a_leader_left_behind_ends_at_the_next_as_its_gateway_tells_of_the_place(
    bench: Bench,
) -> None:
    """The next leader knows nothing of the move until the request is at its target."""
    await ready(bench, "w1", slots=1)
    request = bench.assign(request_id="r0")
    await request.placed()
    await ready(bench, "w2", slots=1)
    asked = asyncio.create_task(bench.asks.move(bench.address, "r0", "w2", None))
    told = await request.relocated()
    await bench.resign()
    with pytest.raises(MeshError) as caught:
        await asked
    assert caught.value.reason == "NOT_LEADER"
    await request.ended()
    await bench.lead()
    async with gateway(bench, held(bench, 0, "w1")) as one:
        await bench.moved(told)  # of a move that is not the leader's own
        assert await where(bench) == {"r0": ("w1", "")}
        one.line.tell(held=[held(bench, 0, "w2")])
        await until(bench, r0=("w2", ""))
        assert (await bench.assign().placed()).worker_id == "w1"
