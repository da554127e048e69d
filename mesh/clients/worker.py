"""Calling a worker: load and unload for the scheduler. The gateway's relay has its own stream."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from whimbrel.inference.v1 import inference_pb2
from whimbrel.worker.v1 import worker_pb2 as pb
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceStub

from mesh.clients.channel import Channels, limit, stream, unary
from mesh.clients.wire import load_progress_from, numerics_to, tier_from
from mesh.errors import Expired, Unreachable
from mesh.facts import NumericsLevel, Tier
from mesh.requests import LoadProgress, Pooling

LOAD_S = 3600.0
UNLOAD_S = 60.0
EMBED_S = 600.0
POOLINGS = {Pooling.MEAN: pb.POOLING_MEAN, Pooling.LAST: pb.POOLING_LAST, Pooling.CLS: pb.POOLING_CLS}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A replica is ready; `tier` is where its weights came from, `bytes` are theirs, without the KV cache."""

    tier: Tier
    bytes: int


@dataclass(frozen=True, slots=True)
class LoadCommand:
    """Which checkpoint to make which replica of, from which store, under whose fence. An adapter has a base, and the
    model, if any, whose replica a base that has to be made first is."""

    model: str
    digest: str
    store_address: str
    fence: int
    base: str = ""
    base_model: str = ""
    numerics: NumericsLevel | None = None  # the worker's default


class WorkerClient:
    """Calls any worker by its address."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def load(self, address: str, command: LoadCommand) -> AsyncGenerator[LoadProgress | Loaded, None]:
        """Progress, then Loaded. Leaving the iteration cancels the load."""
        request = pb.LoadRequest(
            model=command.model,
            digest=command.digest,
            store_address=command.store_address,
            fence=command.fence,
            base=command.base,
            base_model=command.base_model,
            numerics=numerics_to(command.numerics),
        )
        call = WorkerServiceStub(self._channels.to(address)).Load(request, timeout=limit(LOAD_S))
        async with aclosing(stream(call, f"worker at {address}")) as responses:
            async for response in responses:
                if response.WhichOneof("event") == "loaded":
                    yield Loaded(tier_from(response.loaded.tier), response.loaded.bytes)
                else:
                    yield load_progress_from(response.progress)

    async def embed(
        self, address: str, model: str, digest: str, inputs: Sequence[Sequence[int]], pooling: Pooling
    ) -> list[list[float]]:
        """A vector for each input, from a replica that is there. Leaving cancels it."""
        request = pb.EmbedRequest(
            model=model,
            digest=digest,
            inputs=[inference_pb2.TokenIds(ids=tokens) for tokens in inputs],
            pooling=POOLINGS[pooling],
        )
        call = WorkerServiceStub(self._channels.to(address)).Embed(request, timeout=limit(EMBED_S))
        response = await unary(call, f"worker at {address}")
        return [list(vector.values) for vector in response.vectors]

    async def answers(self, address: str, within_s: float) -> bool:
        """Whether anybody does there, in that time."""
        request = pb.GetStatusRequest()
        try:
            await unary(WorkerServiceStub(self._channels.to(address)).GetStatus(request, timeout=within_s), address)
        except (Unreachable, Expired):
            return False
        return True

    async def unload(self, address: str, model: str, digest: str, fence: int) -> None:
        """Ends a replica; one that is not there is no error."""
        stub = WorkerServiceStub(self._channels.to(address))
        request = pb.UnloadRequest(model=model, digest=digest, fence=fence)
        await unary(stub.Unload(request, timeout=limit(UNLOAD_S)), f"worker at {address}")
