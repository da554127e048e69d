"""Workers whose leases have lapsed. The line to a process that stands still, or behind a partition, does not break: its
worker is lost if it does not answer either. One that does has lost touch with Redis alone, and goes on."""

import asyncio

from mesh.clients.worker import WorkerClient
from mesh.errors import Unreachable
from mesh.state.mirror import Mirror
from services.gateway.relay import Line, Lines

ANSWER_S = 1.0


class Lapsed:
    """Gives up the lines to such workers. Without Redis no lease lapses, as far as anybody can tell."""

    def __init__(self, mirror: Mirror, lines: Lines, workers: WorkerClient) -> None:
        self._mirror, self._lines, self._workers = mirror, lines, workers
        self._asking: set[Line] = set()

    async def watch(self) -> None:
        """Looks whenever the facts change, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            with self._mirror.watching() as changed:
                while True:
                    changed.clear()
                    for line in self._unaccounted():
                        self._asking.add(line)
                        group.create_task(self._ask(line), name=f"asking {line.address}")
                    await changed.wait()

    def _unaccounted(self) -> list[Line]:
        if self._mirror.stale:
            return []
        known = {member.address for member in self._mirror.facts.members.values()}
        return [line for line in self._lines.open if line.address not in known and line not in self._asking]

    async def _ask(self, line: Line) -> None:
        try:
            if not await self._workers.answers(line.address, ANSWER_S):
                line.give_up(Unreachable("its lease has lapsed, and it does not answer"))
        finally:
            self._asking.discard(line)
