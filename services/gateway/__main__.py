"""python -m services.gateway: the public door. Holds only its running requests; run as many as you like."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from whimbrel.gateway.v1 import gateway_pb2_grpc as rpc

from mesh.clients.channel import Channels
from mesh.clients.scheduler import SchedulerClient
from mesh.clients.store import StoreClient
from mesh.clients.worker import WorkerClient
from mesh.facts import Kind
from mesh.garbage import spare_requests
from mesh.serve import Ground, Mounted, main, owned
from mesh.state.mirror import Mirror
from services.gateway.answer import Answers
from services.gateway.checkpoints import Checkpoints
from services.gateway.cluster import ClusterServicer
from services.gateway.embedding import Embeddings
from services.gateway.embeddings import EmbeddingServicer
from services.gateway.exactness import Numerics
from services.gateway.generation import GenerationServicer
from services.gateway.holding import Holding
from services.gateway.lapsed import Lapsed
from services.gateway.leading import Leading
from services.gateway.models import ModelServicer
from services.gateway.places import Places
from services.gateway.relay import Lines
from services.gateway.retries import Bounds
from services.gateway.settings import GatewaySettings
from services.gateway.texts import Texts
from services.gateway.tiers import Tiers


@asynccontextmanager
async def build(settings: GatewaySettings, ground: Ground) -> AsyncIterator[Sequence[Mounted]]:
    """The gateway, standing on the ground."""
    channels = Channels()
    gateway_id = f"{ground.me.id}.{ground.me.fence}"  # its former life is another gateway
    lines, stores = Lines(channels, gateway_id), StoreClient(channels)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(channels.close)
        stack.push_async_callback(lines.close)
        mirror = await stack.enter_async_context(Mirror(ground.state).running())
        texts = stack.enter_context(Texts(stores, mirror, settings.cache_dir, settings.tokenizers, settings.absent_s))
        texts.on_first = spare_requests  # by then all that tokenizers need is imported
        await stack.enter_async_context(owned(texts.keep_warm(), ground))
        await stack.enter_async_context(owned(_tidy(channels, mirror), ground))
        leading = Leading(mirror)
        await stack.enter_async_context(owned(leading.watch(), ground))
        lapsed = Lapsed(mirror, lines, WorkerClient(channels))
        await stack.enter_async_context(owned(lapsed.watch(), ground))
        holding = Holding(mirror, leading, channels, gateway_id)
        await stack.enter_async_context(owned(holding.announce(), ground))
        places = Places(
            mirror, SchedulerClient(channels), leading, holding, hold_s=settings.hold_s, absent_s=settings.absent_s
        )
        bounds = Bounds(settings.attempts, settings.deaths)
        answers = Answers(places, lines, Numerics(mirror), gateway_id, bounds=bounds, limits=settings.move_limits())
        embeddings = Embeddings(places, WorkerClient(channels), settings.attempts)
        yield _mounted(
            EmbeddingServicer(mirror, texts, embeddings),
            GenerationServicer(mirror, texts, answers, settings.default_max_tokens),
            ModelServicer(ground, mirror, Checkpoints(stores, mirror), Tiers(stores, mirror)),
            ClusterServicer(ground, mirror, SchedulerClient(channels)),
        )


async def _tidy(channels: Channels, mirror: Mirror) -> None:
    """Closes channels to processes that have left; workers come and go, and each life has another address."""
    with mirror.watching() as changed:
        while True:
            changed.clear()
            if not mirror.stale:
                await channels.close_dead({member.address for member in mirror.facts.members.values()})
            await changed.wait()


def _mounted(
    embedding: EmbeddingServicer, generation: GenerationServicer, models: ModelServicer, cluster: ClusterServicer
) -> list[Mounted]:
    package = "whimbrel.gateway.v1"
    return [
        Mounted(f"{package}.EmbeddingService", partial(rpc.add_EmbeddingServiceServicer_to_server, embedding)),
        Mounted(f"{package}.GenerationService", partial(rpc.add_GenerationServiceServicer_to_server, generation)),
        Mounted(f"{package}.ModelService", partial(rpc.add_ModelServiceServicer_to_server, models)),
        Mounted(f"{package}.ClusterService", partial(rpc.add_ClusterServiceServicer_to_server, cluster)),
    ]


if __name__ == "__main__":
    main(Kind.GATEWAY, GatewaySettings, build)
