"""Answers that end, and clients that go, while a move stands still at one of its points: it ends once, and for good."""

from contextlib import AsyncExitStack

import pytest

from mesh.faults import Point
from mesh.requests import MoveKind
from tests.e2e.moves.faulty import OPAQUE, PACKED, Faulty
from tests.e2e.moves.test_faults import check_whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
GOES_ON = (  # the source does, however long the move stands there
    Point.GATEWAY_EXPECTS,
    Point.TARGET_RESERVES,
    Point.GATEWAY_SENDS,
    Point.SOURCE_SENDS,
    Point.SOURCE_STREAMS,
    Point.TARGET_RECEIVES,
    Point.SOURCE_STOPS,
)
KINDS = [
    *((point, PACKED, MoveKind.KV) for point in GOES_ON),
    (Point.TARGET_RESERVES, PACKED, MoveKind.TOKENS),
    (Point.SOURCE_STREAMS, OPAQUE, MoveKind.KV),
    (Point.TARGET_READY, OPAQUE, MoveKind.KV),
]
GONE = [*((point, PACKED, MoveKind.KV) for point in Point), (Point.TARGET_READY, OPAQUE, MoveKind.KV)]


@pytest.mark.parametrize(("point", "model", "kind"), KINDS)
async def test_an_answer_that_ends_in_its_move_ends_once_and_where_it_was(
    struck: Faulty, point: Point, model: str, kind: MoveKind
) -> None:
    struck.orders.give(point, "hold")
    async with struck.reading(model) as reading, struck.moving(reading, kind):
        await struck.orders.held(point)
        await reading.whole()
        struck.orders.go_on(point)
    assert not await struck.mend()
    await struck.forgotten()
    await check_whole(struck, reading)
    assert reading.heard.finished
    assert not reading.heard.finished.moves


@pytest.mark.parametrize(("point", "model", "kind"), GONE)
async def test_a_client_that_goes_in_a_move_leaves_nothing_behind(
    struck: Faulty, point: Point, model: str, kind: MoveKind
) -> None:
    struck.orders.give(point, "hold")
    async with AsyncExitStack() as client:
        reading = await client.enter_async_context(struck.begun(model))
        async with struck.moving(reading, kind):
            await struck.orders.held(point)
            await client.aclose()
            struck.orders.go_on(point)
            await struck.forgotten()
    assert not await struck.mend()
