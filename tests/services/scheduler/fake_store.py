"""A store at the edge of the process: a real socket, a real lease, no bytes. A test says how its prefetches go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from grpc import aio
from whimbrel.inference.v1 import inference_pb2 as words
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1.store_pb2_grpc import StoreServiceServicer, add_StoreServiceServicer_to_server

from mesh.errors import MeshError
from mesh.facts import CheckpointFacts, Kind, Member, StoreFacts, Tier
from mesh.interceptor import Surround
from mesh.state.connection import State
from mesh.state.leases import Membership

Context = aio.ServicerContext[Any, Any]
TIERS = {words.TIER_DISK: Tier.DISK, words.TIER_DRAM: Tier.DRAM}


@dataclass(frozen=True, slots=True)
class Asked:
    """A prefetch that was asked for."""

    digest: str
    tier: Tier


@dataclass
class FakeStore(StoreServiceServicer):
    """Publishes what the real one would: a checkpoint comes to a tier, of 10 bytes."""

    membership: Membership
    facts: StoreFacts
    prefetches: list[Asked] = field(default_factory=list)
    evictions: list[Asked] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # something was asked of it
    go: asyncio.Event = field(default_factory=asyncio.Event)  # prefetches end when it is set
    left: asyncio.Event = field(default_factory=asyncio.Event)  # a caller has given one up
    fails: MeshError | None = None

    def publish(self, *held: CheckpointFacts) -> None:
        """Says what is here."""
        self.facts = replace(self.facts, checkpoints=held, dram_used_bytes=sum(one.dram_bytes for one in held))
        self.membership.publish(replace(self.membership.member, store=self.facts))

    async def Evict(self, request: pb.EvictRequest, context: Context) -> pb.EvictResponse:  # noqa: N802
        """Notes it."""
        self.evictions.append(Asked(request.digest, TIERS[request.tier]))
        return pb.EvictResponse(freed_bytes=10)

    async def Prefetch(self, request: pb.PrefetchRequest, context: Context) -> AsyncIterator[pb.PrefetchResponse]:  # noqa: N802
        """Half the bytes, a wait for `go`, the rest."""
        asked = Asked(request.digest, TIERS[request.tier])
        self.prefetches.append(asked)
        self.changed.set()
        if self.fails:
            raise self.fails
        yield _progress(5)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        others = (one for one in self.facts.checkpoints if one.digest != asked.digest)
        in_dram = 10 if asked.tier is Tier.DRAM else 0
        self.publish(*others, CheckpointFacts(asked.digest, 10, asked.tier, 10, in_dram))
        yield _progress(10)


@asynccontextmanager
async def store(state: State, store_id: str, *held: CheckpointFacts, dram_bytes: int = 0) -> AsyncIterator[FakeStore]:
    """Serves and holds its lease until the block ends."""
    async with AsyncExitStack() as life:
        server = aio.server(interceptors=[Surround()])
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        facts = StoreFacts(0, dram_bytes, 0)
        member = Member(Kind.STORE, store_id, "n1", address)
        membership = await life.enter_async_context(Membership(state, member, lease_s=60.0))
        fake = FakeStore(membership, facts)
        add_StoreServiceServicer_to_server(fake, server)
        await server.start()
        life.push_async_callback(server.stop, None)
        fake.publish(*held)
        yield fake


def _progress(done: int) -> pb.PrefetchResponse:
    return pb.PrefetchResponse(progress=words.LoadProgress(tier=words.TIER_DISK, bytes_done=done, bytes_total=10))
