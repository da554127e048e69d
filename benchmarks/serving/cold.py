"""Time to first token of a cold start from DRAM, beside that of a fresh process that does from_pretrained."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cache import read as into_page_cache
from benchmarks.child import child
from benchmarks.formats import shards
from benchmarks.machine import cores
from benchmarks.series import BenchmarkBroken, Series
from benchmarks.serving.peer_process import FRESH_START, FreshStart
from benchmarks.serving.stage import Answer, Stage, greedy, read
from mesh.clients.gateway_records import ModelChange, ModelState
from mesh.requests import StartKind

MODEL = "cold"
PROMPT = "What is a whimbrel?"
KEEP_ALIVE_S = 0.2
PARAMETERS_B, QUICK_PARAMETERS_B = 1.0, 0.1
TO_ZERO_S = 60.0


@dataclass(frozen=True, slots=True)
class ColdRound:
    """One start of each kind, one right after the other."""

    ours: Answer
    peer: FreshStart
    peer_s: float  # from starting the process to its token


@dataclass(frozen=True, slots=True)
class ColdFigures:
    """All rounds. `parameters_b`: billions of weights; both sides had `threads` threads of torch."""

    parameters_b: float
    threads: int
    rounds: tuple[ColdRound, ...]

    @property
    def ours_s(self) -> Series:
        """Time to first token at our client."""
        return Series.of(one.ours.first_s for one in self.rounds)

    @property
    def peer_s(self) -> Series:
        """Time to first token of the fresh process."""
        return Series.of(one.peer_s for one in self.rounds)

    @property
    def speedup(self) -> Series:
        """How many times sooner ours comes."""
        return self.peer_s.over(self.ours_s)

    @property
    def same_tokens(self) -> int:
        """Rounds in which both sides said the same."""
        return sum(one.ours.first_token == one.peer.first_token for one in self.rounds)


async def measure_cold(stage: Stage) -> ColdFigures:
    """Alternates the two; the model is in DRAM, its files are in the page cache, and no worker has it."""
    parameters_b, count = (QUICK_PARAMETERS_B, 2) if stage.quick else (PARAMETERS_B, 7)
    deployed = await stage.deploy(MODEL, parameters_b, KEEP_ALIVE_S)
    stage.say("cold start: the checkpoint goes to DRAM once")
    await _ask(stage)
    rounds = []
    for number in range(count):
        stage.say(f"  round {number + 1} of {count}")
        rounds.append(await _round(stage, deployed.source))
    return ColdFigures(parameters_b, cores(), tuple(rounds))


async def _round(stage: Stage, source: Path) -> ColdRound:
    ours = await _ask(stage)
    if ours.started.start_kind is not StartKind.DRAM:
        raise BenchmarkBroken(f"the start was {ours.started.start_kind}, not from DRAM; is there memory for the model?")
    await asyncio.to_thread(into_page_cache, shards(source))
    began_s = time.perf_counter()
    settings = {"OMP_NUM_THREADS": str(cores())}
    async with child("benchmarks.serving.peer_process", [str(source), PROMPT], settings) as process:
        peer = FRESH_START.validate_json(await process.answer())
        peer_s = time.perf_counter() - began_s
    if peer.prompt_tokens != ours.started.prompt_tokens:
        raise BenchmarkBroken("the two sides did not get the same prompt")
    return ColdRound(ours, peer, peer_s)


async def _ask(stage: Stage) -> Answer:
    """One token, and then until the model is on no worker any more."""
    changes = stage.client.watch([MODEL])  # begun before, so that what it says of the start cannot be missed
    answer = await read(stage.client.generate(MODEL, PROMPT, greedy(1)), time.perf_counter)
    try:
        async with asyncio.timeout(TO_ZERO_S):
            await _until_gone(changes)
    except TimeoutError as error:
        raise BenchmarkBroken(f"{MODEL} is still loaded after {TO_ZERO_S:g} s without a request") from error
    return answer


async def _until_gone(changes: AsyncGenerator[ModelChange]) -> None:
    """Returns when the model has been on a worker and is on none."""
    came = False
    async with aclosing(changes):
        async for change in changes:
            if change.model:
                cold = change.model.state is ModelState.COLD
                if came and cold:
                    return
                came = came or not cold
