"""Watching: all that is there, a bookmark, then each change. A slow reader sees fewer states, never a wrong one."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.facts import ClusterFacts
from mesh.state.mirror import Mirror

T = TypeVar("T")


class Step(StrEnum):
    """What a watch tells."""

    EXISTING = "existing"
    BOOKMARK = "bookmark"
    UPDATED = "updated"
    DELETED = "deleted"


EVENT_TYPES = {
    Step.EXISTING: pb.EVENT_TYPE_EXISTING,
    Step.BOOKMARK: pb.EVENT_TYPE_BOOKMARK,
    Step.UPDATED: pb.EVENT_TYPE_UPDATED,
    Step.DELETED: pb.EVENT_TYPE_DELETED,
}


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One step of a watch. `item` is None at the bookmark; a deleted item is the last one seen."""

    kind: Step
    item: T | None


async def watch(
    mirror: Mirror, look: Callable[[ClusterFacts], Mapping[str, T]], draining: asyncio.Event
) -> AsyncGenerator[Change[T], None]:
    """Compares what `look` shows after every change with what was sent; ends when the process drains."""
    with mirror.watching() as changed:
        seen = dict(look(mirror.facts))
        for item in seen.values():
            yield Change(Step.EXISTING, item)
        yield Change(Step.BOOKMARK, None)
        ended = asyncio.create_task(draining.wait())
        try:
            while await _next(changed, ended):
                fresh = dict(look(mirror.facts))
                for change in _differences(seen, fresh):
                    yield change
                seen = fresh
        finally:
            ended.cancel()


async def _next(changed: asyncio.Event, ended: asyncio.Task[bool]) -> bool:
    """Waits for a change; False when the process drains."""
    waiting = asyncio.create_task(changed.wait())
    try:
        await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    changed.clear()
    return not ended.done()


def _differences(seen: Mapping[str, T], fresh: Mapping[str, T]) -> list[Change[T]]:
    updated = [Change(Step.UPDATED, item) for name, item in fresh.items() if seen.get(name) != item]
    return updated + [Change(Step.DELETED, item) for name, item in seen.items() if name not in fresh]
