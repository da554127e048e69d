"""The cluster that is struck at every point of a move."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing

import pytest
import pytest_asyncio

from chaos.redis import Valkey
from cli.cluster import ClusterOptions
from mesh.clients.channel import Channels
from mesh.facts import NumericsLevel
from tests.e2e.conftest import SETTINGS, running
from tests.e2e.library import Library
from tests.e2e.moves.faulty import OPAQUE, PACKED, WORKERS, Faulty
from tests.e2e.moves.orders import Orders

LEVELS = {PACKED: NumericsLevel.PATH_INVARIANT, OPAQUE: NumericsLevel.BATCH_INVARIANT}


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def struck(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[Faulty]:
    """Each test leaves all of it running, and idle."""
    orders, channels = Orders(tmp_path_factory.mktemp("orders")), Channels()
    async with AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(Valkey(tmp_path_factory.mktemp("redis")).running())
        options = ClusterOptions(
            tmp_path_factory.mktemp("struck"),
            workers=WORKERS,
            schedulers=2,
            gateways=2,
            redis_url=valkey.url,
            settings=SETTINGS | {"WHIMBREL_FAULTS": str(orders.directory)},
        )
        mesh = await stack.enter_async_context(running(options, library, tuple(LEVELS)))
        stack.push_async_callback(channels.close)
        for model, level in LEVELS.items():
            digest = library.digest(model)
            deploying = mesh.client.deploy(model, checkpoint=digest, numerics=level, min_replicas=WORKERS)
            async with aclosing(deploying) as events:
                async for _ in events:
                    pass
        faulty = Faulty(mesh.cluster, valkey, channels, orders)
        await faulty.mend()
        yield faulty


@pytest.fixture(autouse=True)
def _no_orders(struck: Faulty) -> Iterator[None]:
    """What a test has ordered, and nobody taken, is no order to the next."""
    struck.refusals.clear()
    yield
    struck.orders.clear()
