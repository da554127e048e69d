"""Tokens a second through gateway and worker, beside those of the same engine called directly."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from benchmarks.child import Child, child
from benchmarks.machine import cores
from benchmarks.series import Series
from benchmarks.serving.batch import BATCH, ELAPSED, Batch
from benchmarks.serving.stage import Deployed, Stage, greedy, read

MODEL = "relayed"
PARAMETERS_B = 0.1
STREAMS = 8
PROMPTS = tuple(f"Tell me of bird number {number} on the shore." for number in range(STREAMS))


@dataclass(frozen=True, slots=True)
class RelayFigures:
    """Tokens a second of each round; both sides had `threads` threads of torch."""

    parameters_b: float
    threads: int
    tokens: int  # of each of the streams
    served: Series
    direct: Series

    @property
    def efficiency(self) -> Series:
        """What is left of the engine's speed at the end of the mesh."""
        return self.served.over(self.direct)


async def measure_relay(stage: Stage) -> RelayFigures:
    """Alternates the two. One core is left to gateway and client, if there are two."""
    threads = max(1, cores() - 1)
    tokens, count = (48, 2) if stage.quick else (128, 9)
    deployed = await stage.deploy(MODEL, PARAMETERS_B)
    stage.say(f"relay: {STREAMS} streams of {tokens} tokens, {threads} of {cores()} cores for torch")
    await stage.cluster.end("worker-1")
    settings = {"OMP_NUM_THREADS": str(threads)}
    async with (
        _engine(stage, deployed, settings) as engine,
        stage.worker("services.worker", {**settings, "WHIMBREL_ID": "worker-relay"}),
    ):
        await engine.answer()
        await _pair(stage, engine, tokens)  # the first loads the replica
        rounds = []
        for number in range(count):
            stage.say(f"  round {number + 1} of {count}")
            rounds.append(await _pair(stage, engine, tokens))
    served, direct = (Series.of(side) for side in zip(*rounds, strict=True))
    return RelayFigures(PARAMETERS_B, threads, tokens, served, direct)


async def _pair(stage: Stage, engine: Child, tokens: int) -> tuple[float, float]:
    """Tokens a second: through the mesh, and of the engine alone."""
    return await _served(stage, tokens), await _direct(engine, tokens)


async def _served(stage: Stage, tokens: int) -> float:
    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(_answer(stage, prompt, tokens)) for prompt in PROMPTS]
    elapsed_s = time.perf_counter() - began_s
    return sum(answer.result() for answer in answers) / elapsed_s


async def _answer(stage: Stage, prompt: str, tokens: int) -> int:
    answer = await read(stage.client.generate(MODEL, prompt, greedy(tokens)), time.perf_counter)
    return answer.finished.completion_tokens


async def _direct(engine: Child, tokens: int) -> float:
    elapsed = ELAPSED.validate_json(await engine.ask(BATCH.dump_json(Batch(PROMPTS, tokens)).decode()))
    return elapsed.tokens / elapsed.elapsed_s


def _engine(stage: Stage, deployed: Deployed, settings: dict[str, str]) -> AbstractAsyncContextManager[Child]:
    """The engine in a process of its own, on the memory of the cluster's store."""
    store_address = stage.cluster.process("store-1").address.result()
    arguments = [MODEL, deployed.digest, store_address, str(deployed.source / "tokenizer.json")]
    return child("benchmarks.serving.engine_process", arguments, settings)
