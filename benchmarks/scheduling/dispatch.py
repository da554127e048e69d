"""What the scheduler adds to a warm request: a real one, a process over a real Valkey, is asked for places at a steady
rate. The workers are leases and facts alone, for nobody calls a worker before a request has its place. The scheduler
has a core of its own, as in a cluster, unless the machine has but one; client and Redis share the others."""

import asyncio
import random
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import count

from benchmarks.child import child
from benchmarks.cores import on_cores, one_apart
from benchmarks.cpu import cpu_s
from benchmarks.machine import load_average
from benchmarks.scheduling.histogram import Buckets
from benchmarks.scheduling.papers import MODELS, PATIENCE_S, Papers, name, published
from benchmarks.series import BenchmarkBroken
from cli.cluster import HOST
from mesh.clients.channel import Channels
from mesh.clients.scheduler import SchedulerClient
from mesh.requests import Placement, Wish
from mesh.state.connection import State
from mesh.state.embedded import embedded_redis
from mesh.state.mirror import Mirror

NAME, INSIDE, PROCESSOR = "dispatch", "whimbrel_dispatch_seconds", "whimbrel_dispatch_processor_seconds"
PER_S, HELD_S = 500.0, 0.05
WARM_S, MEASURED_S, QUICK_S = 2.0, 30.0, 5.0


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Of all requests. `inside` is from a request's arrival in the scheduler to its place, as that process counts it,
    and `processor` its thread's processor time meanwhile; `whole_s`, sorted, from a client's call to its place, so with
    both ends of gRPC and the client itself."""

    inside: Buckets
    processor: Buckets
    whole_s: tuple[float, ...]
    cpu_us: float  # the scheduler's processor time a request, the end of its place included
    load_average: float

    def inside_ms(self, share: float) -> float:
        """A percentile."""
        return self.inside.percentile(share) * 1e3

    def processor_ms(self, share: float) -> float:
        """A percentile."""
        return self.processor.percentile(share) * 1e3

    def whole_ms(self, share: float) -> float:
        """A percentile."""
        return self.whole_s[int(share * (len(self.whole_s) - 1))] * 1e3

    def text(self) -> str:
        """A line."""
        kinds = (self.inside_ms, self.processor_ms, self.whole_ms)
        inside, processor, whole = (f"P50 {of(0.5):.2f} ms, P99 {of(0.99):.2f} ms" for of in kinds)
        return (
            f"dispatch of {self.inside.count} warm requests at {PER_S:.0f}/s: in the scheduler {inside}, of it at work "
            f"{processor}; at the client {whole}; "
            f"{self.cpu_us:.0f} µs of the scheduler's processor each; load average {self.load_average:.1f}"
        )


async def measure_dispatch(*, quick: bool) -> Dispatch:
    """Requests come at random, whatever becomes of those before; each holds its place for a moment."""
    own, others = one_apart()
    with on_cores(others):
        return await _measure(own, quick=quick)


async def _measure(own: Collection[int], *, quick: bool) -> Dispatch:
    async with (
        embedded_redis() as redis_url,
        State(redis_url, NAME) as state,
        published(state) as papers,
        _scheduler(redis_url, own) as (pid, page_url),
        Mirror(state).running() as mirror,
    ):
        if not await mirror.until(lambda facts: facts.leader is not None, PATIENCE_S):
            raise BenchmarkBroken(f"no scheduler leads after {PATIENCE_S:g} s")
        assert mirror.facts.leader
        async with aclosing(Client(mirror.facts.leader.address, papers)) as client:
            await client.ask(WARM_S)
            before, before_s = await _page(page_url), cpu_s(pid)
            whole_s = await client.ask(QUICK_S if quick else MEASURED_S)
            after, cpu = await _page(page_url), cpu_s(pid) - before_s
    inside, processor = (Buckets.on(after, name).since(Buckets.on(before, name)) for name in (INSIDE, PROCESSOR))
    if inside.count != len(whole_s):
        raise BenchmarkBroken(f"of {len(whole_s)} requests, {inside.count} found a place at the first look")
    return Dispatch(inside, processor, tuple(sorted(whole_s)), cpu / len(whole_s) * 1e6, load_average())


class Client:
    """Asks as gateways do."""

    def __init__(self, address: str, papers: Mapping[str, Papers]) -> None:
        self._channels, self._address, self._papers = Channels(), address, papers
        self._scheduler = SchedulerClient(self._channels)
        self._rng, self._numbers = random.Random(0), count()

    async def ask(self, duration_s: float) -> list[float]:
        """At the rate, for so long. Seconds from each call to its place. BenchmarkBroken when one is refused."""
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._one()) async for _ in self._moments(duration_s)]
        except ExceptionGroup as failed:
            raise BenchmarkBroken(f"a warm request found no place: {failed.exceptions[0]}") from failed
        return [task.result() for task in asked]

    async def _moments(self, duration_s: float) -> AsyncIterator[None]:
        """Of a Poisson process."""
        began_s, at_s = time.perf_counter(), self._rng.expovariate(PER_S)
        while at_s < duration_s:
            await asyncio.sleep(began_s + at_s - time.perf_counter())
            yield
            at_s += self._rng.expovariate(PER_S)

    async def aclose(self) -> None:
        """Ends its connection."""
        await self._channels.close()

    async def _one(self) -> float:
        wish = Wish(f"r{next(self._numbers)}", name(self._rng.randrange(MODELS)))
        began_s = time.perf_counter()
        async with aclosing(self._scheduler.assign(self._address, wish)) as events:
            async for event in events:
                if isinstance(event, Placement):
                    took_s = time.perf_counter() - began_s
                    papers = self._papers[event.worker_id]
                    papers.runs(event.digest, 1)
                    await asyncio.sleep(HELD_S)
                    papers.runs(event.digest, -1)
                    return took_s
        raise BenchmarkBroken("the scheduler ended the call before")


@asynccontextmanager
async def _scheduler(redis_url: str, cores: Collection[int]) -> AsyncIterator[tuple[int, str]]:
    """Its pid, and the address of its page of metrics."""
    port = _free_port()
    settings = {
        "WHIMBREL_REDIS_URL": redis_url,
        "WHIMBREL_CLUSTER": NAME,
        "WHIMBREL_HOST": HOST,
        "WHIMBREL_METRICS_PORT": str(port),
    }
    async with AsyncExitStack() as stack:
        with on_cores(cores):
            process = await stack.enter_async_context(child("services.scheduler", settings=settings))
        await process.answer()  # the line that says where it listens
        yield process.pid, f"http://{HOST}:{port}/metrics"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


async def _page(url: str) -> str:
    def read() -> str:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)
