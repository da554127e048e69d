"""Waiting for a store that is being started again: what it holds is not lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mesh.errors import Unreachable
from mesh.facts import ClusterFacts, Kind, Member
from mesh.state.mirror import Mirror

T = TypeVar("T")
AGAIN_S = 1.0  # who has answered may have been behind our facts, and nothing tells when it has caught up


class Absence:
    """How long somebody has waited for stores already. One that stays away for `absent_s` counts as gone."""

    def __init__(self, mirror: Mirror, absent_s: float) -> None:
        self._mirror, self._absent_s = mirror, absent_s
        self._gives_up_s: float | None = None

    async def ends(self) -> bool:
        """Waits until the stores are others, or have other facts; False when it has lasted too long."""
        now, stores = asyncio.get_running_loop().time(), _stores(self._mirror.facts)
        self._gives_up_s = self._gives_up_s or now + self._absent_s
        if now >= self._gives_up_s:
            return False
        await self._mirror.until(lambda facts: _stores(facts) != stores, min(self._gives_up_s - now, AGAIN_S))
        return True


async def with_store(mirror: Mirror, absent_s: float, ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` returns; while it raises Unreachable, it is asked again."""
    absence = Absence(mirror, absent_s)
    while True:
        try:
            return await ask()
        except Unreachable:
            if not await absence.ends():
                raise


def _stores(facts: ClusterFacts) -> tuple[Member, ...]:
    return facts.of_kind(Kind.STORE)
