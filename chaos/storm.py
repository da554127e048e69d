"""Troubles, one after the other and some at once, for as long as clients ask."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos.crowd import Crowd
from chaos.deeds import Deeds
from chaos.troubles import Deed, Trouble, troubles
from cli.cluster import LocalCluster


@dataclass(slots=True)
class Damage:
    """What was done, by deed and process or outcome, and what ended by itself."""

    done: Counter[tuple[Deed, str]] = field(default_factory=Counter)
    ended_alone: list[str] = field(default_factory=list)


class Storm:
    """Goes on until cancelled; every process is healed by the end of `raging`."""

    def __init__(self, cluster: LocalCluster, crowd: Crowd, deeds: Deeds, say: Callable[[str], None]) -> None:
        self._cluster, self._crowd, self._deeds, self._say = cluster, crowd, deeds, say
        self._began_s = time.monotonic()
        self.damage = Damage()

    async def rage(self, seed: int, calm: asyncio.Event) -> None:
        """Until `calm` is set; what is broken then is mended first."""
        async with asyncio.TaskGroup() as group:
            revival = group.create_task(self._revive())
            coming = group.create_task(self._befall(seed, group))
            await calm.wait()
            coming.cancel()
            revival.cancel()

    async def _befall(self, seed: int, group: asyncio.TaskGroup) -> None:
        for trouble in troubles(seed):
            await self._crowd.more(trouble.after_tokens)
            group.create_task(self._one(trouble))

    async def _one(self, trouble: Trouble) -> None:
        began_s = time.monotonic()
        outcome = await self._deeds.do(trouble)
        if not outcome:
            return
        self.damage.done[trouble.deed, outcome] += 1
        at_s, took_s = began_s - self._began_s, time.monotonic() - began_s
        self._say(f"  {at_s:7.1f} s  {trouble.deed:<13} {outcome:<24} {took_s:.1f} s")

    async def _revive(self) -> None:
        async for process in self._cluster.unexpected_exits():
            name = process.program.id
            if self._deeds.is_struck(name):
                continue  # what it needs at its start is away, and it is started once more
            self.damage.ended_alone.append(name)
            self._say(f"  {name} ended by itself:\n{process.tail()}")
            await self._deeds.revive(name)
