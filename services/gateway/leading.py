"""Which scheduler leads, and blocks that end when another one does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.errors import Unreachable
from mesh.facts import Leader
from mesh.state.mirror import Mirror


class Leading:
    """A scheduler that is frozen, or behind a partition, breaks no stream: the facts tell that another leads."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._blocks: dict[asyncio.Timeout, int] = {}  # to the fence that each relies on

    @asynccontextmanager
    async def under(self, leader: Leader) -> AsyncIterator[None]:
        """Raises Unreachable, reason NOT_LEADER, in the block as soon as another leads."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._blocks[scope] = leader.fence
                self._end_outdated()
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise Unreachable("another scheduler leads now", reason="NOT_LEADER", retry_after_s=0.5) from error
        finally:
            self._blocks.pop(scope, None)

    async def watch(self) -> None:
        """Ends the blocks, for as long as it runs."""
        with self._mirror.watching() as changed:
            while True:
                changed.clear()
                self._end_outdated()
                await changed.wait()

    def _end_outdated(self) -> None:
        leader = self._mirror.facts.leader
        if leader is None:
            return
        for scope, fence in list(self._blocks.items()):
            if fence != leader.fence:
                del self._blocks[scope]
                scope.reschedule(asyncio.get_running_loop().time())
