"""A store at the edge of the process: real sockets, a real lease, no bytes. It has what the test says that it has."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio
from whimbrel.inference.v1 import inference_pb2 as words
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1.store_pb2_grpc import StoreServiceServicer, add_StoreServiceServicer_to_server

from mesh.checkpoint import layout
from mesh.checkpoint.layout import Manifest
from mesh.errors import MeshError, NotFound
from mesh.facts import CheckpointFacts, Kind, Member, StoreFacts
from mesh.interceptor import Surround
from mesh.state.connection import State
from mesh.state.leases import Membership

KV_BYTES_PER_TOKEN = 64


class FakeStore(StoreServiceServicer):
    """Keeps what it was asked; `gone` is set when a client leaves a prefetch."""

    def __init__(self, manifests: Mapping[str, Manifest]) -> None:
        self._manifests = manifests
        self.prefetches: list[pb.PrefetchRequest] = []
        self.evictions: list[pb.EvictRequest] = []
        self.imports: list[pb.ImportRequest] = []
        self.fails: MeshError | None = None
        self.stalls = False
        self.bases: dict[str, str] = {}  # of those that are adapters, by digest
        self.adapter_config: dict[str, object] = {"peft_type": "LORA", "r": 4}
        self.gone = asyncio.Event()

    async def Stat(self, request: pb.StatRequest, context: Any) -> pb.StatResponse:  # noqa: N802
        """A checkpoint that an engine could run."""
        if self.fails:
            raise self.fails
        if request.digest not in self._manifests:
            raise NotFound("not here")
        manifest = self._manifests[request.digest]
        return pb.StatResponse(manifest=layout.dump(manifest), checkpoint=self._checkpoint(manifest))

    async def Import(self, request: pb.ImportRequest, context: Any) -> AsyncIterator[pb.ImportResponse]:  # noqa: N802
        """The first that it has."""
        self.imports.append(request)
        yield pb.ImportResponse(checkpoint=self._checkpoint(next(iter(self._manifests.values()))))

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> AsyncIterator[pb.ReadFileResponse]:  # noqa: N802
        """An adapter's configuration, whichever it is."""
        yield pb.ReadFileResponse(data=json.dumps(self.adapter_config).encode())

    async def Prefetch(self, request: pb.PrefetchRequest, context: Any) -> AsyncIterator[pb.PrefetchResponse]:  # noqa: N802
        """Two words, unless it fails or stalls after the first."""
        self.prefetches.append(request)
        if self.fails:
            raise self.fails
        try:
            for done in (1, 2):
                progress = words.LoadProgress(tier=words.TIER_DISK, bytes_done=done, bytes_total=2)
                yield pb.PrefetchResponse(progress=progress)
                if self.stalls:
                    await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.gone.set()
            raise

    async def Evict(self, request: pb.EvictRequest, context: Any) -> pb.EvictResponse:  # noqa: N802
        """Frees seven bytes."""
        self.evictions.append(request)
        if self.fails:
            raise self.fails
        return pb.EvictResponse(freed_bytes=7)

    def _checkpoint(self, manifest: Manifest) -> words.Checkpoint:
        return words.Checkpoint(
            digest=manifest.digest,
            bytes=layout.total_bytes(manifest),
            architecture=manifest.architecture,
            dtype=manifest.dtype,
            max_context=manifest.max_context,
            kv_bytes_per_token=0 if manifest.digest in self.bases else KV_BYTES_PER_TOKEN,
            base=self.bases.get(manifest.digest, ""),
            runner=words.RUNNER_KIND_UNSPECIFIED if manifest.digest in self.bases else words.RUNNER_KIND_PACKED,
        )


@asynccontextmanager
async def fake_store(
    state: State, store_id: str, manifests: Mapping[str, Manifest], held: tuple[CheckpointFacts, ...], origins: int = 0
) -> AsyncIterator[FakeStore]:
    """Serves and holds its lease until the block ends."""
    # nobody calls the methods that it lacks
    fake = FakeStore(manifests)  # type: ignore[abstract]
    server = aio.server(interceptors=[Surround()])
    add_StoreServiceServicer_to_server(fake, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    member = Member(
        Kind.STORE, store_id, f"node of {store_id}", address, store=StoreFacts(0, 0, 0, held, origins=origins)
    )
    try:
        async with Membership(state, member, lease_s=60.0):
            yield fake
    finally:
        await server.stop(None)
