"""Another node's store as a test wants it: a real servicer on a real socket, a real member of the cluster."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1 import store_pb2_grpc

from mesh.checkpoint import layout
from mesh.errors import NotFound
from mesh.facts import CheckpointFacts, Kind, Member, StoreFacts, Tier
from mesh.interceptor import Surround
from mesh.state.connection import State
from mesh.state.leases import Membership
from services.store.suppliers import not_here
from tests.services.store.made import CONFIG, Made

CHUNK_BYTES = 1 << 20


class Peer(store_pb2_grpc.StoreServiceServicer):
    """Serves one checkpoint. `sent` counts units that left whole; `spoil` may change bytes, `pause` may wait or end."""

    def __init__(self, made: Made, units: Collection[int] | None = None) -> None:
        self.made = made
        self.units = set(range(len(made.manifest.units)) if units is None else units)
        self.sent: Counter[int] = Counter()
        self.manifest_json, self.config = layout.dump(made.manifest), CONFIG
        self.spoil: Callable[[int, bytes], bytes] = lambda unit, data: data
        self.pause: Callable[[int], Any] = _never
        self.server: aio.Server
        self.address = ""
        self._death: asyncio.Future[None] | None = None

    async def die(self) -> None:
        """Breaks all its streams, and is gone; its lease stays for a while. A stream of its own may ask for it."""
        if self._death is None:
            self._death = asyncio.ensure_future(self.server.stop(0))
        await asyncio.shield(self._death)  # which cancels that stream

    async def Stat(self, request: pb.StatRequest, context: Any) -> pb.StatResponse:  # noqa: N802
        """The manifest."""
        if request.digest != self.made.digest:
            raise NotFound("not this one", reason="UNKNOWN_CHECKPOINT")
        return pb.StatResponse(manifest=self.manifest_json)

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> AsyncIterator[pb.ReadFileResponse]:  # noqa: N802
        """The one that there is."""
        yield pb.ReadFileResponse(data=self.config)

    async def ReadUnits(  # noqa: N802
        self, request: pb.ReadUnitsRequest, context: Any
    ) -> AsyncIterator[pb.ReadUnitsResponse]:
        """As a store does it."""
        assert request.here_only
        if missing := [unit for unit in request.units if unit not in self.units]:
            raise not_here(request.digest, missing)
        for unit in request.units:
            await self.pause(unit)
            data = self.spoil(unit, self.made.unit(unit))
            for start in range(0, len(data), CHUNK_BYTES):
                yield pb.ReadUnitsResponse(unit=unit, offset=start, data=data[start : start + CHUNK_BYTES])
            self.sent[unit] += 1


async def _never(unit: int) -> None:
    """Goes on."""


async def for_ever(unit: int) -> None:
    """Sends nothing any more, and keeps its stream open."""
    await asyncio.Event().wait()


@asynccontextmanager
async def peer(
    state: State, made: Made, *, peer_id: str = "p1", units: Collection[int] | None = None
) -> AsyncIterator[Peer]:
    """A store on another node that holds these units, all unless told, and says so."""
    one, server = Peer(made, units), aio.server(interceptors=[Surround()])
    store_pb2_grpc.add_StoreServiceServicer_to_server(one, server)  # type: ignore[no-untyped-call]
    one.server, one.address = server, f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    whole = len(one.units) == len(made.manifest.units)
    held = CheckpointFacts(
        made.digest,
        made.size_bytes,
        Tier.DISK if whole else Tier.ORIGIN,
        disk_bytes=made.size_bytes if whole else sum(made.manifest.units[unit].bytes for unit in one.units),
    )
    member = Member(Kind.STORE, peer_id, f"node-of-{peer_id}", one.address, store=StoreFacts(0, 0, 0, (held,)))
    await server.start()
    try:
        async with Membership(state, member, lease_s=60):
            yield one
    finally:
        await one.die()
