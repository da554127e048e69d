"""Tokens a second and time to first token, ours beside the others, at several batch sizes, in both precisions."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Child, child
from benchmarks.engine.peers import PEERS, Peer
from benchmarks.engine.race import Entrant, Result, race
from benchmarks.engine.stage import Model, Stage, batches, threads
from benchmarks.loading.peers import ROOT
from benchmarks.series import Series

OURS = "ours"
PRECISE = "float32"  # in less, engines that round elsewhere soon differ


@dataclass(frozen=True, slots=True)
class Heat:
    """One precision at one batch size."""

    dtype: str
    prompts: int
    results: Mapping[str, Result]  # by key

    def speedup(self, theirs: str) -> Series:
        """Our tokens a second over theirs, round by round."""
        return self.results[OURS].tokens_per_s.over(self.results[theirs].tokens_per_s)

    def cpu_speedup(self, theirs: str) -> Series:
        """The same for a second of processor time."""
        return self.results[OURS].tokens_per_cpu_s.over(self.results[theirs].tokens_per_cpu_s)

    def ttft_speedup(self, theirs: str) -> Series:
        """Their time to first token over ours."""
        return self.results[theirs].ttft_s.over(self.results[OURS].ttft_s)


@dataclass(frozen=True, slots=True)
class ThroughputFigures:
    """`missing`: labels of peers that are not installed."""

    heats: tuple[Heat, ...]
    missing: tuple[str, ...]


async def measure_throughput(stage: Stage, venvs: Path) -> ThroughputFigures:
    """One precision after the other, so that only its processes take memory."""
    heats: list[Heat] = []
    for dtype in stage.sizes.dtypes:
        stage.say(f"starting the engines in {dtype}")
        async with _entrants(stage, stage.models[dtype], venvs) as entrants:
            heats += [await _heat(stage, dtype, prompts, entrants) for prompts in stage.sizes.batches]
    return ThroughputFigures(tuple(heats), tuple(peer.label for peer in PEERS if not peer.installed(venvs)))


async def _heat(stage: Stage, dtype: str, prompts: int, entrants: list[Entrant]) -> Heat:
    stage.say(f"  {prompts} at once")
    drawn = batches(prompts, stage.sizes.prompt_tokens, stage.sizes.tokens)
    return Heat(dtype, prompts, await race(entrants, drawn.__next__, stage.sizes.rounds, proves=dtype == PRECISE))


@asynccontextmanager
async def _entrants(stage: Stage, model: Model, venvs: Path) -> AsyncIterator[list[Entrant]]:
    """They load side by side."""
    async with AsyncExitStack() as stack:
        entrants = [Entrant(OURS, "Whimbrel", await stack.enter_async_context(stage.ours(model)))]
        for peer in PEERS:
            if peer.installed(venvs):
                process = await stack.enter_async_context(_peer(stage, model, peer, venvs))
                entrants.append(Entrant(peer.key, peer.label, process))
        for entrant in entrants:
            await entrant.process.answer()
        yield entrants


def _peer(stage: Stage, model: Model, peer: Peer, venvs: Path) -> AbstractAsyncContextManager[Child]:
    settings = {**threads(stage.threads), "PYTHONPATH": str(ROOT), **peer.settings}
    arguments = [peer.key, str(model.source), model.dtype]
    return child("benchmarks.engine.contestant", arguments, settings, peer.python(venvs))
