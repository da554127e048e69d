"""A store in this process, on a real socket and a real Valkey, and the cluster's view of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from grpc import aio

from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.facts import Kind, Member, StoreFacts
from mesh.interceptor import Surround
from mesh.serve import Ground
from mesh.state.connection import State
from mesh.state.leases import Membership
from mesh.state.mirror import Mirror
from services.store.__main__ import build
from services.store.settings import StoreSettings

SEEN_S = 60.0  # for what takes milliseconds on a machine that is not busy


@dataclass(frozen=True, slots=True)
class Serving:
    """A store that answers at `address`."""

    address: str
    client: StoreClient
    mirror: Mirror
    settings: StoreSettings
    id: str

    def facts(self) -> StoreFacts | None:
        """What the cluster knows of it now."""
        member = self.mirror.facts.members.get(f"store/{self.id}")
        return member.store if member else None


@asynccontextmanager
async def serving(
    state: State, store_dir: Path, *, store_id: str = "s1", node: str = "n1", **settings: object
) -> AsyncIterator[Serving]:
    """Starts a store on `store_dir` and stops it at the end. Nothing is scrubbed meanwhile, which would find what is
    damaged on purpose before whoever is to find it, a minute after the start."""
    usual = {"store_dir": store_dir, "dram_bytes": 64 << 20, "reader_threads": 3, "scrub_period_s": 0}
    chosen = StoreSettings.load(**usual | settings)
    server = aio.server(
        interceptors=[Surround()], options=[("grpc.max_receive_message_length", chosen.max_message_bytes)]
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    channels, draining = Channels(), asyncio.Event()
    async with (
        Membership(state, Member(Kind.STORE, store_id, node, address), lease_s=30) as membership,
        build(chosen, Ground(state, membership, draining, asyncio.Future())) as mounted,
        Mirror(state).running() as mirror,
    ):
        for service in mounted:
            service.mount(server)
        await server.start()
        try:
            yield Serving(address, StoreClient(channels), mirror, chosen, store_id)
        finally:
            draining.set()
            await channels.close()
            await server.stop(1)


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def names_in(directory: Path) -> set[str]:
    """What lies in a directory, a store's locks aside."""
    return {path.name for path in directory.iterdir()} - {".lock", ".store.lock"}
