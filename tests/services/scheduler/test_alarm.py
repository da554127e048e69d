"""An alarm, by a clock whose moments are past: it rings at the loop's next turn."""

import asyncio

from mesh.clock import HandClock
from services.scheduler.alarm import Alarm

NOW_S, FAR_S = 100.0, 1e6


class Rung:
    """An alarm, and how often it has rung."""

    def __init__(self) -> None:
        self.times = 0
        self.alarm = Alarm(HandClock(NOW_S), self._ring)

    def _ring(self) -> None:
        self.times += 1

    async def soon(self) -> int:
        """How often, once all that is due has rung."""
        due = asyncio.Event()
        asyncio.get_running_loop().call_later(0, due.set)
        await due.wait()
        return self.times


async def test_it_rings_once_at_the_earliest_moment_that_it_was_set_to() -> None:
    rung = Rung()
    for at_s in (FAR_S, NOW_S, FAR_S):
        rung.alarm.set(at_s)
    assert await rung.soon() == 1
    assert await rung.soon() == 1
    rung.alarm.set(NOW_S)
    assert await rung.soon() == 2


async def test_it_rings_at_no_moment_but_those_it_was_set_to() -> None:
    rung = Rung()
    rung.alarm.set(NOW_S)
    rung.alarm.set(None)
    rung.alarm.off()
    assert await rung.soon() == 0
    rung.alarm.set(FAR_S)
    assert await rung.soon() == 0
    rung.alarm.off()
