"""Clients that ask all the while, of all gateways behind one channel, while processes go and come back."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from grpc import aio

from mesh.clients.channel import OPTIONS
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import SamplingWishes
from mesh.errors import MeshError
from tests.e2e.asking import PATIENCE_S, PROMPT, whole

IN_TURN = '{"loadBalancingConfig":[{"round_robin":{}}]}'
LENGTHS = (2, 30)  # tokens


@dataclass(slots=True)
class Load:
    """What came of it: answers by what was going on, and every failure in words."""

    going_on: str = ""
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def answered(self) -> None:
        """One more."""
        self.answers[self.going_on] += 1
        self._news.set()

    async def more(self, count: int) -> None:
        """Waits for so many more answers."""
        wanted = self.answers.total() + count
        async with asyncio.timeout(PATIENCE_S):
            while self.answers.total() < wanted:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def load(gateways: Sequence[str], models: tuple[str, ...], clients: int) -> AsyncIterator[Load]:
    """Asks until the block ends; what is under way then is read to its end."""
    target = "ipv4:" + ",".join(gateways)
    options = [*OPTIONS, ("grpc.service_config", IN_TURN)]
    made, ending = Load(), asyncio.Event()
    async with aio.insecure_channel(target, options=options) as channel, asyncio.TaskGroup() as group:
        client = GatewayClient(channel, target)
        for number in range(clients):
            group.create_task(_ask_on(client, made, ending, itertools.cycle(models[number % len(models) :] + models)))
        yield made
        ending.set()


async def _ask_on(client: GatewayClient, made: Load, ending: asyncio.Event, models: "itertools.cycle[str]") -> None:
    lengths = itertools.cycle(LENGTHS)
    while not ending.is_set():
        tokens, model = next(lengths), next(models)
        wishes = SamplingWishes(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        began_with = made.going_on
        try:
            answer = await whole(client.generate(model, PROMPT, wishes, within_s=PATIENCE_S))
        except MeshError as error:
            made.failures.append(f"{model}, {began_with} to {made.going_on}: {error.reason}: {error.message}")
        else:
            assert len(answer.token_ids) == tokens
            made.answered()
