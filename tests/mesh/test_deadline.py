"""Deadlines: a call made for a served call never outlives it."""

import asyncio

import pytest

from mesh import deadline
from mesh.clients.channel import limit
from mesh.errors import Expired
from tests.mesh.edge import Context, Edge, Shape

ROUNDED = 1.02  # gRPC writes a timeout with few digits, rounded up


async def nested_left_s(edge: Edge, own_s: float | None, asked_s: float | None) -> float | None:
    """What a call has left that a handler makes with a limit of its own, for a client that gave `asked_s`."""
    found: list[float | None] = []

    async def outer(context: Context) -> None:
        edge.behave = inner
        await edge.call(Shape.UNARY_UNARY, timeout=limit(own_s))

    async def inner(context: Context) -> None:
        found.append(context.time_remaining())

    edge.behave = outer
    await edge.call(Shape.UNARY_STREAM, timeout=asked_s)
    return found[0]


async def test_what_the_served_call_has_left_limits_the_nested_call(edge: Edge) -> None:
    left_s = await nested_left_s(edge, own_s=None, asked_s=30.0)
    assert left_s is not None
    assert 0 < left_s <= 30.0 * ROUNDED


async def test_a_nested_calls_own_shorter_limit_counts(edge: Edge) -> None:
    left_s = await nested_left_s(edge, own_s=10.0, asked_s=30.0)
    assert left_s is not None
    assert 0 < left_s <= 10.0 * ROUNDED


async def test_a_nested_calls_own_longer_limit_does_not(edge: Edge) -> None:
    left_s = await nested_left_s(edge, own_s=60.0, asked_s=30.0)
    assert left_s is not None
    assert 0 < left_s <= 30.0 * ROUNDED


async def test_without_any_limit_there_is_none(edge: Edge) -> None:
    assert await nested_left_s(edge, own_s=None, asked_s=None) is None


async def test_a_nested_call_ends_with_the_served_one(edge: Edge) -> None:
    ended = asyncio.Event()

    async def outer(context: Context) -> None:
        edge.behave = inner
        await edge.call(Shape.UNARY_UNARY, timeout=limit(None))

    async def inner(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    edge.behave = outer
    with pytest.raises(Expired):
        await edge.call(Shape.UNARY_UNARY, timeout=1.0)  # it has begun by then, on a busy machine too
    async with asyncio.timeout(60):
        await ended.wait()


async def test_calls_served_side_by_side_keep_their_own_deadlines() -> None:
    async def served(seconds: float | None) -> float | None:
        deadline.set_left(seconds)
        await asyncio.sleep(0)
        return deadline.left(None)

    short_s, none_s, long_s = await asyncio.gather(served(1.0), served(None), served(100.0))
    assert none_s is None
    assert short_s is not None
    assert long_s is not None
    assert short_s <= 1.0 < long_s <= 100.0


async def test_a_deadline_in_the_past_leaves_nothing_and_never_less() -> None:
    deadline.set_left(-5.0)
    assert deadline.left(None) == 0.0
    assert deadline.left(10.0) == 0.0
