"""An answer whose tokens are timed."""

from collections.abc import AsyncGenerator

import pytest

from benchmarks.migration.watched import Watched, watching
from benchmarks.series import BenchmarkBroken
from mesh.clients.gateway_records import AnswerEvent, Delta
from mesh.errors import Unreachable


async def deltas(count: int, error: Exception | None = None) -> AsyncGenerator[AnswerEvent]:
    for number in range(count):
        yield Delta("a", (7,), number)
    if error:
        raise error


async def test_it_tells_of_the_error_that_ended_the_answer() -> None:
    async with watching("one", deltas(3, Unreachable("gone"))) as watched:
        await watched.until(3)
        with pytest.raises(Unreachable, match="gone"):
            await watched.until(4)


async def test_an_answer_that_ends_too_soon_is_no_measurement() -> None:
    async with watching("one", deltas(3)) as watched:
        with pytest.raises(BenchmarkBroken, match="after 3 tokens"):
            await watched.until(4)


def test_the_usual_step_is_the_median_and_the_gap_the_longest() -> None:
    watched = Watched("one")
    watched.times_s += [0.0, 1.0, 2.0, 3.0, 9.0, 10.0]
    assert watched.step_s(0, 6) == 1.0
    assert watched.longest_s(0) == 6.0
    assert watched.longest_s(0, 4) == 1.0
