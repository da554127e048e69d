"""Workers on real sockets, each with an engine and a replica of its own, and a gateway's lines to them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from grpc import aio

from mesh.clients.channel import Channels
from mesh.clients.relay import Command, News, RelayClient
from mesh.clients.store import StoreClient
from mesh.errors import MeshError
from mesh.interceptor import Surround
from mesh.moves import MoveEvent, MoveFailed, Stopped
from mesh.requests import Cancel, Farewell, Frame, Grant, Sampling
from services.worker.engine.batch import Limits
from services.worker.engine.engine import Engine
from services.worker.engine.errors import UnknownReplica
from services.worker.engine.replica import Replica
from services.worker.engine.request import TokenStep
from services.worker.guides import Guides
from services.worker.loading.adapting import AdapterLoader
from services.worker.loading.host import Host
from services.worker.loading.loader import Loader, Order
from services.worker.loading.skeletons import Skeletons
from services.worker.moving.limits import USUAL, MoveLimits
from services.worker.naming import replica_name
from services.worker.relay import Relay
from services.worker.replicas import Replicas
from services.worker.service import WorkerServicer
from services.worker.settings import Transport
from tests.services.worker.engine.tiny import prompt

WAIT_S = 60.0
TURN_S = 0.002  # between two steps, for the threads that blocks leave and come on
LONGER, LONGEST_S = 1.15, 0.5  # each turn than the last, while the engine is ahead of the test
MODEL, DIGEST = "m", "d" * 64
NAME = replica_name(MODEL, DIGEST)
SAMPLING = Sampling(160, 0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, 1, ())
E = TypeVar("E", bound=MoveEvent)


class Line:
    """A gateway's line to one worker, and what has come on it."""

    def __init__(self, channels: Channels, address: str, caught_up: Callable[[], None]) -> None:
        self.caught_up, self._acts = caught_up, False
        self._client = RelayClient(channels, address, "gateway")
        self.frames: list[Frame] = []
        self.events: list[MoveEvent] = []
        self.tokens_when: dict[MoveEvent, int] = {}  # how many had come when an event did
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._read())

    def send(self, command: Command) -> None:
        """Says it to the worker."""
        self._client.send(command)
        if isinstance(command, Cancel):
            self._looks_on()

    async def close(self) -> None:
        """Breaks it."""
        self._task.cancel()
        await asyncio.wait([self._task])

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return self._task.done()

    def of(self, key: str, epoch: int) -> tuple[int, ...]:
        """The tokens of an ownership, in order."""
        return sum((one.tokens for one in self.frames if (one.key, one.epoch) == (key, epoch)), ())

    async def tokens(self, key: str, epoch: int, count: int) -> tuple[int, ...]:
        """Waits until so many have come. The test does something about the rest, which comes as it does."""
        self._looks_on()
        await self._until(lambda: len(self.of(key, epoch)) >= count or self._failed(key, epoch))
        assert len(self.of(key, epoch)) >= count, self._failed(key, epoch)
        self._acts = True
        return self.of(key, epoch)

    async def whole(self, key: str, epoch: int) -> tuple[int, ...]:
        """Waits for the end."""
        await self.last(key, epoch)
        return self.of(key, epoch)

    async def last(self, key: str, epoch: int) -> Frame:
        """The frame that ends it."""

        def ends(frame: Frame) -> bool:
            return (frame.key, frame.epoch) == (key, epoch) and bool(frame.finish or frame.failure_reason)

        self._looks_on()
        await self._until(lambda: any(map(ends, self.frames)))
        return next(filter(ends, self.frames))

    async def event(self, kind: type[E], move_id: str = "move") -> E:
        """Waits for it; fails if the move does."""
        found: list[E] = []

        def there() -> bool:
            mine = [event for event in self.events if event.move_id == move_id]
            found[:] = [event for event in mine if isinstance(event, kind)]
            failed = [event for event in mine if isinstance(event, MoveFailed)]
            assert found or not failed or kind is MoveFailed, failed
            return bool(found)

        await self._until(there)
        return found[-1]

    def _failed(self, key: str, epoch: int) -> str:
        return "".join(one.failure for one in self.frames if (one.key, one.epoch) == (key, epoch))

    async def more(self) -> None:
        """Waits for anything."""
        async with self._news, asyncio.timeout(WAIT_S):
            await self._news.wait()

    async def _until(self, ready: Callable[[], bool]) -> None:
        async with self._news, asyncio.timeout(WAIT_S):
            await self._news.wait_for(ready)

    async def _read(self) -> None:
        try:
            async for news in self._client.frames():
                self._take(news)
                async with self._news:
                    self._news.notify_all()
        except MeshError:
            pass  # the worker is gone

    def _looks_on(self) -> None:
        self._acts = False
        self.caught_up()

    def _take(self, news: News) -> None:
        if isinstance(news, Stopped | MoveFailed):
            self._looks_on()
        match news:
            case Frame():
                self.frames.append(news)
                if not self._acts:
                    self.caught_up()
            case Farewell():
                pass
            case _:
                self.events.append(news)
                self.tokens_when[news] = sum(len(frame.tokens) for frame in self.frames)


class Worker:
    """One, on a socket."""

    def __init__(self, engine: Engine, relay: Relay, address: str, line: Line, server: aio.Server) -> None:
        self.engine, self.relay, self.address, self.line, self.server = engine, relay, address, line, server

    async def is_idle(self) -> None:
        """Fails unless nothing is left, once what was said before has been carried out."""
        if not self.line.closed:
            self.line.send(grant("last", 2**31, max_tokens=1))
            await self.line.whole("last", 2**31)
        for name in self.engine.stats().replicas:
            one = await asyncio.wrap_future(self.engine.ask_replica(name, lambda replica: replica.stats()))
            assert (one.running, one.waiting, one.free_blocks) == (0, 0, one.total_blocks), one


class _InStep:
    """Lets the engine take its next step when the event loop has told of this one, and others have had their turn. That
    gets longer while the test has not heard of the steps before, or acts on what it has heard: however busy the
    machine, a move finds its answer under way."""

    def __init__(self, relay: Relay, loop: asyncio.AbstractEventLoop) -> None:
        self._relay, self._loop, self.free = relay, loop, threading.Event()
        self._turn_s = TURN_S

    def caught_up(self) -> None:
        """The test waits for more."""
        self._turn_s = TURN_S

    def __call__(self, steps: list[TokenStep]) -> None:
        told = threading.Event()
        self._relay.on_steps(steps)
        self._loop.call_soon_threadsafe(told.set)
        while not (self.free.is_set() or told.wait(0.1)):
            pass
        self.free.wait(self._turn_s)
        self._turn_s = min(self._turn_s * LONGER, LONGEST_S)


@asynccontextmanager
async def worker(
    *replicas: Replica, scratch: Path, order: Order | None = None, limits: MoveLimits = USUAL
) -> AsyncIterator[Worker]:
    """With these replicas; `order` says where NAME's tokenizer is."""
    loop = asyncio.get_running_loop()
    channels, relay = Channels(), Relay(loop)
    stores = StoreClient(channels)
    steps = _InStep(relay, loop)
    engine = Engine(steps, threads=1)

    def order_of(name: str) -> Order:
        if order is None or name != NAME:
            raise UnknownReplica(f"no replica of {name} is resident")
        return order

    relay.begin(engine, Guides(stores, order_of, scratch), limits)
    engine.start()
    for one in replicas:
        engine.add_replica(one)
    device = Host(stores, Transport.AUTO)
    loader = Loader(stores, device, Skeletons(0, scratch), 1 << 20, Limits())
    resident = Replicas(engine, loader, AdapterLoader(stores, device), memory_bytes=1 << 30, kv_bytes=1 << 20)
    server = aio.server(interceptors=[Surround()])
    WorkerServicer("w", resident, relay, engine, 1 << 30).mount(server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    line = Line(channels, address, steps.caught_up)
    try:
        yield Worker(engine, relay, address, line, server)
    finally:
        steps.free.set()
        await line.close()
        await server.stop(0)
        await asyncio.to_thread(engine.close)
        await channels.close()


def grant(key: str = "r", epoch: int = 1, *, log: Sequence[int] = (), move_id: str = "", **changes: object) -> Grant:
    """Of a prompt of 17 tokens; `changes` are its sampling's, or its `prompt`."""
    tokens = changes.pop("prompt", prompt(17))
    sampling = replace(SAMPLING, **changes)  # type: ignore[arg-type]
    return Grant(key, epoch, MODEL, DIGEST, tokens, tuple(log), sampling, move_id)  # type: ignore[arg-type]
