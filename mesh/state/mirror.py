"""The cluster's facts in this process: a snapshot of Redis, then every event folded in. Read-only."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import structlog
from redis.exceptions import RedisError

from mesh.errors import Unreachable
from mesh.facts import ClusterFacts, Leader, Member, ModelEntry
from mesh.state.catalogue import ENTRY
from mesh.state.connection import QUIET_MS, State, stream_entries
from mesh.state.keys import Keys
from mesh.state.leases import MEMBER

log = structlog.get_logger()
BATCH = 500
RETRY_S = 0.5
K = TypeVar("K")
V = TypeVar("V")


def fold(facts: ClusterFacts, event: Mapping[str, str]) -> ClusterFacts:
    """The facts after one event. Folding the newest events again, in their order, leads to the same facts."""
    kind, name, fence = event["kind"], event["id"], int(event["fence"])
    if kind in ("leader", "resigned"):
        return _fold_leader(facts, name, fence, event.get("body"))
    if kind in ("model", "deleted"):
        return _fold_model(facts, name, fence, event.get("body"))
    if kind == "drain":
        return replace(facts, drains=facts.drains | {name})
    if kind == "undrain":
        return replace(facts, drains=facts.drains - {name})
    return _fold_member(facts, name, fence, event.get("body"))


def _fold_leader(facts: ClusterFacts, name: str, fence: int, address: str | None) -> ClusterFacts:
    if facts.leader and facts.leader.fence > fence:
        return facts
    return replace(facts, leader=None if address is None else Leader(name, address, fence))


def _fold_model(facts: ClusterFacts, name: str, revision: int, body: str | None) -> ClusterFacts:
    known = facts.models.get(name)
    if known and known.revision >= revision:
        return facts
    if body is None:
        return replace(facts, models=_without(facts.models, name))
    return replace(facts, models=_with(facts.models, name, _entry(body, str(revision))))


def _fold_member(facts: ClusterFacts, name: str, fence: int, body: str | None) -> ClusterFacts:
    known = facts.members.get(name)
    if known and known.fence > fence:
        return facts
    if body is None:  # left, or lost
        return replace(facts, members=_without(facts.members, name))
    fresh = replace(MEMBER.validate_json(body), fence=fence)
    return replace(facts, members=_with(facts.members, name, fresh))


class Mirror:
    """Follows the events; `facts` is always a whole, consistent snapshot.

    Redis gone: the last known facts stay, and `stale` says so, until everything has been loaded again.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.facts = ClusterFacts()
        self.stale = False
        self._watchers: set[asyncio.Event] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Mirror"]:
        """Loads everything, then follows in the background; an event that cannot be read ends the block too."""
        last = await self._load()
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self._follow(last), name="mirror")
                try:
                    yield self
                finally:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """An event that is set at every change; clear it, then look at `facts` and `stale`."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    async def until(self, seen: Callable[[ClusterFacts], bool], limit_s: float) -> bool:
        """Waits until the facts satisfy `seen`; False when they have not within `limit_s`."""
        if seen(self.facts):  # the usual case, on the path of every request
            return True
        try:
            async with asyncio.timeout(limit_s):
                with self.watching() as changed:
                    while not seen(self.facts):
                        changed.clear()
                        await changed.wait()
        except TimeoutError:
            return seen(self.facts)
        return True

    async def _load(self) -> str:
        keys = self._state.keys
        async with self._state.answering():
            return await self._snapshot(keys)

    async def _snapshot(self, keys: Keys) -> str:
        newest = await self._state.redis.xrevrange(keys.events, count=1)
        last = str(newest[0][0]) if newest else "0-0"
        revisions = await self._hash(keys.revisions)
        models = {n: _entry(b, revisions.get(n, "0")) for n, b in (await self._hash(keys.models)).items()}
        leader = await self._hash(keys.leader)
        self.facts = ClusterFacts(
            members=MappingProxyType(await self._members()),
            models=MappingProxyType(models),
            leader=Leader(leader["holder"], leader["address"], int(leader["fence"])) if leader else None,
            drains=frozenset(map(str, await self._state.redis.smembers(keys.drains))),
        )
        self._tell()
        return last

    async def _members(self) -> dict[str, Member]:
        names = [str(name) for name in await self._state.redis.zrange(self._state.keys.leases, 0, -1)]
        bodies = [await self._hash(self._state.keys.member_prefix + name) for name in names]
        return {name: _member(body) for name, body in zip(names, bodies, strict=True) if body}

    async def _hash(self, key: str) -> dict[str, str]:
        return {str(k): str(v) for k, v in (await self._state.redis.hgetall(key)).items()}

    async def _follow(self, last: str) -> None:
        while True:
            try:
                if self.stale:
                    last = await self._load()
                    log.info("the cluster's state is back")
                    self._mark(stale=False)
                last = await self._read(last)
            except (RedisError, Unreachable) as error:
                if not self.stale:
                    log.warning("the cluster's state is gone; going on from the last known facts", error=str(error))
                self._mark(stale=True)
                await asyncio.sleep(RETRY_S)

    async def _read(self, last: str) -> str:
        events = self._state.keys.events
        async with self._state.answering():  # returns in time even when nothing happens, so that silence is seen
            entries = stream_entries(await self._state.redis.xread({events: last}, count=BATCH, block=QUIET_MS))
            if len(entries) == BATCH and not await self._state.redis.xrange(events, min=last, max=last):
                log.warning("fell behind the cluster's events; loading everything again")
                return await self._snapshot(self._state.keys)
        for event_id, event in entries:
            self.facts = fold(self.facts, event)
            last = event_id
        if entries:
            self._tell()
        return last

    def _mark(self, *, stale: bool) -> None:
        if stale is not self.stale:
            self.stale = stale
            self._tell()

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher.set()


def _member(body: Mapping[str, str]) -> Member:
    return replace(MEMBER.validate_json(body["body"]), fence=int(body["fence"]))


def _entry(body: str, revision: str) -> ModelEntry:
    return replace(ENTRY.validate_json(body), revision=int(revision))


def _with(table: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    return MappingProxyType({**table, key: value})


def _without(table: Mapping[K, V], key: K) -> Mapping[K, V]:
    return MappingProxyType({k: v for k, v in table.items() if k != key})
