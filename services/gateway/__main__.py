"""python -m services.gateway: the public door. Holds only its running requests; run as many as you like."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mesh.clients.store import StoreClient
from whimbrel.gateway.v1 import gateway_pb2_grpc as rpc

from mesh.clients.channel import Channels
from mesh.clients.scheduler import SchedulerClient
from mesh.facts import Kind
from mesh.serve import Ground, Mounted, main
from mesh.state.mirror import Mirror
from services.gateway.answer import Answers
from services.gateway.checkpoints import Checkpoints
from services.gateway.cluster import ClusterServicer
from services.gateway.generation import GenerationServicer
from services.gateway.models import ModelServicer
from services.gateway.places import Places
from services.gateway.relay import Lines
from services.gateway.settings import GatewaySettings
from services.gateway.texts import Texts


@asynccontextmanager
async def build(settings: GatewaySettings, ground: Ground) -> AsyncIterator[Sequence[Mounted]]:
    """The gateway, standing on the ground."""
    channels = Channels()
    gateway_id = f"{ground.me.id}.{ground.me.fence}"  # its former life is another gateway
    lines = Lines(channels, gateway_id)
    stores = StoreClient(channels)
    async with Mirror(ground.state).running() as mirror:
        places = Places(mirror, SchedulerClient(channels), settings.hold_s)
        answers = Answers(places, lines, gateway_id, settings.attempts)
        with Texts(stores, mirror, settings.cache_dir, settings.tokenizers) as texts:
            generation = GenerationServicer(mirror, texts, answers, settings.default_max_tokens)
            models = ModelServicer(ground, mirror, Checkpoints(stores, mirror))
            cluster = ClusterServicer(ground, mirror)
            yield [
                Mounted(
                    "whimbrel.gateway.v1.GenerationService",
                    lambda server: rpc.add_GenerationServiceServicer_to_server(generation, server),
                ),
                Mounted(
                    "whimbrel.gateway.v1.ModelService",
                    lambda server: rpc.add_ModelServiceServicer_to_server(models, server),
                ),
                Mounted(
                    "whimbrel.gateway.v1.ClusterService",
                    lambda server: rpc.add_ClusterServiceServicer_to_server(cluster, server),
                ),
            ]
    await lines.close()
    await channels.close()


if __name__ == "__main__":
    main(Kind.GATEWAY, GatewaySettings, build)
