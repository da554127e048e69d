"""python -m benchmarks.scheduling.takeover: the scheduler that leads is killed again and again, under load."""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.args import parser
from benchmarks.measured import measured
from benchmarks.report import row, say
from benchmarks.series import BenchmarkBroken, Series
from benchmarks.serving.stage import Stage, greedy, read
from cli.cluster import ClusterOptions, LocalCluster
from mesh.clients.gateway import GatewayClient
from mesh.errors import MeshError
from mesh.state.connection import State
from mesh.state.mirror import Mirror

MODEL, PARAMETERS_B, PROMPT = "steady", 0.1, "The tide is"
KILLS, QUICK_KILLS, AT_ONCE, TOKENS = 20, 3, 4, 8
PATIENCE_S = 60.0


@dataclass(slots=True)
class Load:
    """Requests that are asked all the while."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Takeover:
    """One: from the kill until another leads, and until a request that came with the kill has its first token."""

    led_s: float
    answered_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All of them, and what the load got meanwhile."""

    takeovers: tuple[Takeover, ...]
    load: Load

    def led(self) -> Series:
        """Seconds."""
        return Series.of(one.led_s for one in self.takeovers)

    def answered(self) -> Series:
        """Seconds."""
        return Series.of(one.answered_s for one in self.takeovers)


def main() -> None:
    """Exit codes: 0 measured, 1 could not be, or a request failed."""
    made = parser("scheduling.takeover", "Kills the scheduler that leads, under load.")
    made.add_argument("--kills", type=int, default=0, help=f"how often; unset: {KILLS}, and {QUICK_KILLS} with --quick")
    options = made.parse_args()
    figures = measured("scheduling.takeover", _measure(options))
    led, answered = figures.led(), figures.answered()
    say(f"{len(figures.takeovers)} kills; {figures.load.answered} answers, {len(figures.load.failures)} failed")
    row("until another leads", led, "s", f"at most {max(led.values):.2f}")
    row("until a new request has a token", answered, "s", f"at most {max(answered.values):.2f}")
    if options.json:
        say(
            json.dumps({"led_s": led.median, "answered_s": answered.median, "longest_answered_s": max(answered.values)})
        )
    if figures.load.failures:
        raise SystemExit("\n".join(figures.load.failures))


async def _measure(options: argparse.Namespace) -> Figures:
    kills = options.kills or (QUICK_KILLS if options.quick else KILLS)
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as scratch:
        cluster = LocalCluster(ClusterOptions(Path(scratch), workers=1, schedulers=2))
        async with cluster, cluster.client() as client, State(cluster.redis_url, "default") as state:
            stage = Stage(cluster, client, Path(scratch, "models"), quick=options.quick, say=say)
            await stage.deploy(MODEL, PARAMETERS_B)
            await _ask(client)
            async with Mirror(state).running() as mirror, _load(client) as load:
                takeovers = [await _kill(cluster, client, mirror) for _ in range(kills)]
    return Figures(tuple(takeovers), load)


async def _kill(cluster: LocalCluster, client: GatewayClient, mirror: Mirror) -> Takeover:
    leader = mirror.facts.leader
    if leader is None:
        raise BenchmarkBroken("nobody leads")
    began_s = time.perf_counter()
    await cluster.kill(leader.id)
    asking = asyncio.create_task(_ask(client))
    if not await mirror.until(lambda facts: facts.leader not in (None, leader), PATIENCE_S):
        raise BenchmarkBroken(f"nobody leads {PATIENCE_S:g} s after {leader.id} was killed")
    led_s = time.perf_counter() - began_s
    answered_s = await asking - began_s
    await cluster.restart(leader.id)
    return Takeover(led_s, answered_s)


async def _ask(client: GatewayClient) -> float:
    """The moment of the first token."""
    events = client.generate(MODEL, PROMPT, greedy(TOKENS), within_s=PATIENCE_S)
    began_s = time.perf_counter()
    answer = await read(events, time.perf_counter)
    return began_s + answer.first_s


@asynccontextmanager
async def _load(client: GatewayClient) -> AsyncIterator[Load]:
    """Asks for as long as the block lasts, and until what is under way has ended."""
    load, ending = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(_ask_on(client, load, ending))
        yield load
        ending.set()


async def _ask_on(client: GatewayClient, load: Load, ending: asyncio.Event) -> None:
    while not ending.is_set():
        try:
            await _ask(client)
            load.answered += 1
        except (MeshError, BenchmarkBroken) as error:
            load.failures.append(str(error))


if __name__ == "__main__":
    main()
