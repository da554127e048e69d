"""The requests on the real cluster, each at its moment, whatever became of those before it."""

import asyncio
import time
from collections.abc import Sequence
from random import Random

from benchmarks.scheduling.calibration.asking import Seen, ask
from mesh.clients.gateway import GatewayClient
from sim.request import Request


async def replay(client: GatewayClient, requests: Sequence[Request], seed: int) -> list[Seen]:
    """What each client saw, in the order of the requests. The clock never waits for an answer."""
    random, begin_s = Random(seed), time.perf_counter()

    async def one(request: Request) -> Seen:
        await asyncio.sleep(max(0.0, begin_s + request.at_s - time.perf_counter()))
        return await ask(client, request, random)

    return await asyncio.gather(*(one(request) for request in requests))
