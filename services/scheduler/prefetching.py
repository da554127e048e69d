"""Prefetches under way: each is a task of the leader's group that keeps a store's Prefetch stream open."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from mesh.clients.store import StoreClient
from mesh.clock import Clock
from mesh.errors import MeshError, NoRoom, Unreachable
from mesh.facts import NEARNESS, ClusterFacts, Kind, ModelEntry
from mesh.state.mirror import Mirror
from policy.actions import Prefetch
from policy.books import Books
from policy.copying import Copy
from policy.knobs import Knobs

log = structlog.get_logger()
SEEN_S = 10.0


@dataclass(slots=True)
class Prefetching:
    """Carries out Prefetch. A store brings it behind the loads that requests wait for; closing the stream gives up."""

    stores: StoreClient
    mirror: Mirror
    books: Books
    group: asyncio.TaskGroup
    clock: Clock
    knobs: Knobs
    wake: Callable[[], None]
    tasks: dict[Copy, asyncio.Task[None]] = field(default_factory=dict)
    _models: Mapping[str, ModelEntry] | None = None  # the catalogue that the tasks have been held against

    def begin(self, action: Prefetch) -> None:
        """Asks the store, at once."""
        copy = Copy(action.store_id, action.digest, action.tier)
        self.books.copying.began(copy)
        self.tasks[copy] = self.group.create_task(self._bring(copy, action.instead), name=f"prefetch {copy}")

    def end_unwanted(self) -> None:
        """Cancels what no model of the catalogue needs any more."""
        models = self.mirror.facts.models
        if not self.tasks or models is self._models:
            return
        self._models = models
        versions = [entry.checkpoint for entry in models.values()]
        needed = {digest for version in versions for digest in (version.digest, version.base)}
        for copy, task in self.tasks.items():
            if copy.digest not in needed:
                log.info("prefetch ended: no model needs it", checkpoint=copy.digest, store=copy.store_id)
                task.cancel()

    async def _bring(self, copy: Copy, instead: tuple[str, ...]) -> None:
        try:
            for digest in instead:
                await self.stores.evict(self._address(copy), digest, copy.tier)
            async with aclosing(self.stores.prefetch(self._address(copy), copy.digest, copy.tier)) as progress:
                async for _ in progress:
                    pass
            if not await self.mirror.until(lambda facts: holds(facts, copy), SEEN_S):
                raise NoRoom(f"store {copy.store_id} did not keep {copy.digest}; give it more room")
            log.info("prefetched", checkpoint=copy.digest, store=copy.store_id, tier=copy.tier)
        except MeshError as error:
            self._failed(copy, error)
        finally:
            self.books.copying.ended(copy)
            del self.tasks[copy]
            self.wake()

    def _failed(self, copy: Copy, error: MeshError) -> None:
        """A store's own trouble bars it for all checkpoints, a checkpoint's trouble for that one."""
        log.warning("prefetch failed", checkpoint=copy.digest, store=copy.store_id, error=error.message)
        until_s, whole = self.clock.now() + self.knobs.prefetch_bar_s, isinstance(error, Unreachable | NoRoom)
        self.books.copying.bar(copy.store_id, copy.digest, until_s, whole=whole)

    def _address(self, copy: Copy) -> str:
        member = self.mirror.facts.members.get(f"{Kind.STORE}/{copy.store_id}")
        if member is None:
            raise Unreachable(f"store {copy.store_id} is gone; its node must come back")
        return member.address


def holds(facts: ClusterFacts, copy: Copy) -> bool:
    """Whether a store has all of a checkpoint in a tier, or in a nearer one."""
    member = facts.members.get(f"{Kind.STORE}/{copy.store_id}")
    tier = member.store.tier_of(copy.digest) if member and member.store else None
    return tier is not None and NEARNESS[tier] >= NEARNESS[copy.tier]
