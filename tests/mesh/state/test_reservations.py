"""Reservations: only the leader writes them, and its successor reads what it left."""

import pytest

from mesh.errors import StaleFence
from mesh.state.connection import State
from mesh.state.keys import EVENTS_KEPT
from mesh.state.reservations import Reservation, Reservations


async def elected(state: State, name: str) -> int:
    """Makes `name` the leader for an instant; its fence."""
    keys = state.keys
    await state.redis.hset(keys.leader, "until", 0)
    bid: list[str | int] = [name, f"{name}:1", 60_000, 0, EVENTS_KEPT]
    holder, fence, _ = await state.run("lead", [keys.leader, keys.fence, keys.events], bid)
    assert holder == name
    return int(fence)


def load(fence: int, worker_id: str = "w1", number: int = 0) -> Reservation:
    """One under a leader's fence."""
    return Reservation(fence, number, worker_id, 7, "größer/als:0", "ab" * 32, "s1", "demand", "cd" * 32, "base")


async def test_what_a_leader_reserved_is_read_as_it_was_written_until_it_is_released(state: State) -> None:
    reservations, fence = Reservations(state), await elected(state, "a")
    one, other = load(fence), load(fence, "w2", 1)
    await reservations.reserve(one)
    await reservations.reserve(other)
    assert sorted(await reservations.all(), key=lambda found: found.worker_id) == [one, other]
    await reservations.release(fence, one)
    assert await reservations.all() == [other]


async def test_a_former_leader_reserves_nothing_and_releases_nothing(state: State) -> None:
    reservations, former = Reservations(state), await elected(state, "a")
    left = load(former)
    await reservations.reserve(left)
    newer = await elected(state, "b")
    with pytest.raises(StaleFence):
        await reservations.reserve(load(former, "w2"))
    await reservations.release(former, left)
    assert await reservations.all() == [left]
    await reservations.release(newer, left)
    assert await reservations.all() == []


async def test_without_a_leader_nobody_reserves(state: State) -> None:
    with pytest.raises(StaleFence):
        await Reservations(state).reserve(load(1))
