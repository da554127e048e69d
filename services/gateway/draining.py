"""Drains, as their callers see them: begun in Redis, carried out by the scheduler, followed here to their end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from mesh.errors import InvalidRequest, NotFound, Unreachable
from mesh.facts import ClusterFacts, Kind, Member, Tier
from mesh.serve import Ground
from mesh.state.drains import Drains, drained_by, node_drain, worker_drain
from mesh.state.mirror import Mirror
from services.gateway.watch import watch

SEEN_S = 5.0


@dataclass(frozen=True, slots=True)
class Left:
    """What a drain has still to wait for; `only_here` are models whose checkpoint no store elsewhere has."""

    replicas: int
    requests: int
    only_here: tuple[str, ...]


class Draining:
    """Begins drains, follows them, undoes them."""

    def __init__(self, ground: Ground, mirror: Mirror) -> None:
        self._ground, self._mirror, self._drains = ground, mirror, Drains(ground.state)

    async def drain(self, worker_id: str, node: str) -> AsyncGenerator[Left, None]:
        """What is left, whenever that changes, until nothing is. Raises NotFound, InvalidRequest, Unreachable."""
        name = _named(worker_id, node)
        if not any(drained_by(name, member) for member in self._mirror.facts.members.values()):
            raise NotFound(f"no {name.replace('/', ' ', 1)} is there; ClusterService.Get shows those that are")
        await self._drains.begin(name)
        await self._mirror.until(lambda facts: name in facts.drains, SEEN_S)
        async with aclosing(
            watch(self._mirror, lambda facts: {name: left(facts, name)}, self._ground.draining)
        ) as news:
            async for change in news:
                if change.item:
                    yield change.item
                    if not change.item.replicas:
                        return
        raise Unreachable("this gateway is stopping, and the drain goes on", reason="DRAINING", retry_after_s=1.0)

    async def undrain(self, worker_id: str, node: str) -> None:
        """Lets it work again, be it there or not. Raises NotFound when it is not drained."""
        name = _named(worker_id, node)
        if not await self._drains.end(name):
            raise NotFound(f"{name.replace('/', ' ', 1)} is not drained", reason="NOT_DRAINED")


def left(facts: ClusterFacts, name: str) -> Left:
    """Of the workers that a drain is about."""
    workers = [member.worker for member in facts.of_kind(Kind.WORKER) if drained_by(name, member)]
    replicas = [replica for worker in workers if worker for replica in worker.replicas]
    return Left(len(replicas), sum(r.running + r.waiting for r in replicas), _only_here(facts, name))


def _only_here(facts: ClusterFacts, name: str) -> tuple[str, ...]:
    stores = facts.of_kind(Kind.STORE)
    here = [store for store in stores if drained_by(name, store)]
    elsewhere = [store for store in stores if not drained_by(name, store)]
    models = facts.models.values()
    digests = ((model.name, model.checkpoint.digest) for model in models)
    return tuple(sorted(n for n, digest in digests if _held(here, digest) and not _held(elsewhere, digest)))


def _held(stores: list[Member], digest: str) -> bool:
    return any(member.store and member.store.tier_of(digest) in (Tier.DISK, Tier.DRAM) for member in stores)


def _named(worker_id: str, node: str) -> str:
    if not worker_id and not node:
        raise InvalidRequest.field("target", "must name a worker or a node")
    return worker_drain(worker_id) if worker_id else node_drain(node)
