"""Every point of a move, at which somebody dies or is cut off: the client reads on, and nothing is left behind."""

import pytest

from mesh.faults import Point
from mesh.requests import MoveKind
from tests.e2e.moves.faulty import OPAQUE, PACKED, Faulty, Reading, Victim

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LIVES_IN = {"source": "worker", "target": "worker"}  # by the first word of a point
STANDING = {Point.GATEWAY_STOPPED, Point.SOURCE_STOPS, Point.SOURCE_STOPPED}  # where blocks leave, and nothing else
SENDING = {point for point in Point if point.startswith("source")} | {
    Point.GATEWAY_SENDS,
    Point.GATEWAY_STOPPED,
    Point.TARGET_RECEIVES,
    Point.TARGET_READY,
}
COMPUTED = [point for point in Point if point not in SENDING]  # those that a move of kind TOKENS has
WHOLE = [  # those of a whole state that is sent: its source may be released before it hears that all was there
    point for point in Point if point not in STANDING | {Point.SOURCE_SENT}
]
OTHER = [
    *((point, PACKED, MoveKind.TOKENS) for point in COMPUTED),
    *((point, OPAQUE, MoveKind.TOKENS) for point in COMPUTED),
    *((point, OPAQUE, MoveKind.KV) for point in WHOLE),
]


async def check_whole(struck: Faulty, reading: Reading) -> None:
    """The answer that it would have been, once."""
    heard = reading.heard
    assert not heard.failure, heard.failure
    assert not heard.out_of_turn
    assert reading.tokens == await struck.in_peace(reading)
    assert heard.finished
    assert heard.finished.usage.completion_tokens == len(reading.tokens)


@pytest.mark.parametrize(("point", "model", "kind"), [*((point, PACKED, MoveKind.KV) for point in Point), *OTHER])
async def test_who_dies_at_a_point_of_a_move_costs_its_client_nothing(
    struck: Faulty, point: Point, model: str, kind: MoveKind
) -> None:
    struck.orders.give(point, "kill")
    async with struck.reading(model) as reading, struck.moving(reading, kind):
        await reading.whole()
    assert struck.orders.taken(point), struck.refusals
    (dead,) = await struck.mend()
    who = point.partition("-")[0]
    assert dead.startswith(LIVES_IN.get(who, who))
    await check_whole(struck, reading)


@pytest.mark.parametrize("victim", Victim)
@pytest.mark.parametrize("point", Point)
async def test_who_is_cut_off_in_a_move_costs_its_client_nothing(struck: Faulty, point: Point, victim: Victim) -> None:
    struck.orders.give(point, "hold")
    async with struck.reading() as reading, struck.moving(reading):
        await struck.orders.held(point)
        name = await struck.name_of(victim, reading)
        with struck.cut_off(name):
            struck.orders.go_on(point)
            await (struck.missed(name) if victim is Victim.GATEWAY else reading.whole())
        await reading.whole()
    assert not await struck.mend()
    await check_whole(struck, reading)


@pytest.mark.parametrize("victim", Victim)
@pytest.mark.parametrize("point", Point)
async def test_who_dies_while_a_move_waits_costs_its_client_nothing(
    struck: Faulty, point: Point, victim: Victim
) -> None:
    struck.orders.give(point, "hold")
    async with struck.reading() as reading, struck.moving(reading):
        await struck.orders.held(point)
        name = await struck.name_of(victim, reading)
        await struck.kill(name)
        struck.orders.go_on(point)
        await reading.whole()
    if victim is Victim.REDIS:
        await struck.valkey.start()
    assert await struck.mend() == ([] if victim is Victim.REDIS else [name])
    await check_whole(struck, reading)
