"""A cluster whose processes die or stand still at named points of a move, and clients that only want their answers."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from enum import StrEnum

from redis.asyncio import Redis

from chaos.asker import Asker
from chaos.heard import Heard
from chaos.questions import Question, Sort
from chaos.redis import Valkey
from cli.cluster import LocalCluster
from mesh.clients.channel import Channels
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Change, Model, SamplingWishes
from mesh.errors import MeshError
from mesh.facts import ReplicaState
from mesh.requests import MoveKind
from mesh.state.keys import Keys
from tests.e2e.asking import PATIENCE_S, PROMPT, is_idle, replica_status, until, until_model
from tests.e2e.moves.orders import Orders

WORKERS = 3
PACKED, OPAQUE = "llama", "lfm2"  # which leave in blocks, and as whole states
BEGUN = 40  # tokens that the client has when the move is asked for: some blocks that no other worker has
DRAWN = SamplingWishes(temperature=0.9, max_tokens=640, ignore_eos=True, presence_penalty=0.4)
DRIVER, OTHER = "gateway-1", "gateway-2"  # the clients' own, and the one that moves are asked of


class Victim(StrEnum):
    """Whom it befalls."""

    SOURCE = "source"
    TARGET = "target"
    SCHEDULER = "scheduler"  # the one that leads
    GATEWAY = "gateway"  # the client's
    REDIS = "redis"


class Reading:
    """One answer, as its client reads it. `begun` is set when it has some tokens, or has failed."""

    def __init__(self, model: str, request_id: str, seed: int) -> None:
        wishes = replace(DRAWN, seed=seed)
        self.heard = Heard(Question(request_id, Sort.SEEDED, model, PROMPT, wishes))
        self.request_id, self.seed = request_id, seed
        self.begun, self.over = asyncio.Event(), asyncio.Event()

    async def run(self, channels: Channels, addresses: tuple[str, ...]) -> None:
        """Reads it to its end; its client comes back, at the next gateway, for as long as that takes."""
        try:
            await Asker(channels, addresses, self._note).ask(self.heard, 0)
        finally:
            self.begun.set()
            self.over.set()

    async def whole(self) -> None:
        """Returns when the client has all of it, or gives up."""
        async with asyncio.timeout(PATIENCE_S):
            await self.over.wait()

    @property
    def tokens(self) -> list[int]:
        """What it has."""
        return self.heard.answers[0].tokens

    def _note(self, _: int) -> None:
        if self.heard.tokens >= BEGUN:
            self.begun.set()


class Faulty:
    """Three workers, two gateways, two schedulers; every worker has both models, whose levels make equality exact."""

    def __init__(self, cluster: LocalCluster, valkey: Valkey, channels: Channels, orders: Orders) -> None:
        self.cluster, self.valkey, self.orders = cluster, valkey, orders
        self._channels = channels
        self._numbers = itertools.count()
        self.refusals: list[MeshError] = []  # of moves, for whoever looks why a point was not reached

    @asynccontextmanager
    async def reading(self, model: str = PACKED, seed: int | None = None) -> AsyncIterator[Reading]:
        """An answer that has begun, another one than any before unless `seed` is given; at the end of the block it is
        whole."""
        async with self.begun(model, seed) as reading:
            yield reading
            await reading.whole()

    @asynccontextmanager
    async def begun(self, model: str = PACKED, seed: int | None = None) -> AsyncIterator[Reading]:
        """The same, whose client goes at the end of the block."""
        number = next(self._numbers)
        reading = Reading(model, f"answer-{number}", number if seed is None else seed)
        task = asyncio.create_task(reading.run(self._channels, self.cluster.gateway_addresses), name=reading.request_id)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await reading.begun.wait()
            yield reading
        finally:
            task.cancel()

    @asynccontextmanager
    async def moving(self, reading: Reading, kind: MoveKind = MoveKind.KV) -> AsyncIterator[None]:
        """Asks the other gateway to move it, while the block runs; what comes of that is no concern of the asker's."""
        task = asyncio.create_task(self._move(reading.request_id, kind), name=f"moving {reading.request_id}")
        try:
            yield
        finally:
            task.cancel()

    @contextmanager
    def cut_off(self, name: str) -> Iterator[None]:
        """A process, or Redis, neither answers nor hangs up while the block runs."""
        if name == Victim.REDIS:
            self.valkey.stop()
        else:
            os.kill(self.cluster.process(name).pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if name == Victim.REDIS:
                self.valkey.cont()
            else:
                os.kill(self.cluster.process(name).pid, signal.SIGCONT)

    async def kill(self, name: str) -> None:
        """A process, or Redis, at once."""
        await (self.valkey.kill() if name == Victim.REDIS else self.cluster.kill(name))

    async def name_of(self, victim: Victim, reading: Reading) -> str:
        """Which process that is, while its request moves."""
        if victim is Victim.SCHEDULER:
            async with Redis.from_url(self.cluster.redis_url, decode_responses=True) as redis:
                return str((await redis.hgetall(Keys("default").leader))["holder"])
        if victim in (Victim.GATEWAY, Victim.REDIS):
            return DRIVER if victim is Victim.GATEWAY else victim
        (request,) = (one for one in await self._other().requests() if one.request_id == reading.request_id)
        return request.worker_id if victim is Victim.SOURCE else request.to_worker_id

    async def missed(self, name: str) -> None:
        """Returns when the other gateway has heard that a process's lease has lapsed."""
        async with asyncio.timeout(PATIENCE_S), aclosing(self._other().watch_cluster()) as changes:
            there = False
            async for change in changes:
                if change.member and change.member.id == name:
                    there = change.change is not Change.DELETED
                if change.change is not Change.EXISTING and not there:
                    return

    async def in_peace(self, reading: Reading) -> list[int]:
        """The tokens that the same answer has when nothing befalls it."""
        async with self.reading(reading.heard.question.model, reading.seed) as again:
            pass
        assert not again.heard.failure, again.heard.failure
        return again.tokens

    async def forgotten(self) -> None:
        """Returns when no request has a place any more, or waits for one."""
        await until(self._other().requests, lambda found: not found)

    async def mend(self) -> list[str]:
        """Starts again what has died, and says what that was. Returns when every worker has the models, and is idle."""
        dead = [process.program.id for process in self.cluster.processes if process.ended.done()]
        for name in dead:
            await self.cluster.restart(name)
        async with self.cluster.client() as client:
            for name in (PACKED, OPAQUE):
                await until_model(client, name, lambda model: _ready(model) == WORKERS)
                for number in range(1, WORKERS + 1):
                    await until(lambda: replica_status(self.cluster, f"worker-{number}", name), is_idle)  # noqa: B023
        return dead

    async def _move(self, request_id: str, kind: MoveKind) -> None:
        try:
            await self._other().move(request_id, kind=kind)
        except MeshError as error:
            self.refusals.append(error)

    def _other(self) -> GatewayClient:
        address = self.cluster.process(OTHER).address.result()
        return GatewayClient(self._channels.to(address), address)


def _ready(model: Model) -> int:
    """How many workers can answer with it."""
    return sum(replica.state is ReplicaState.READY for replica in model.replicas)
