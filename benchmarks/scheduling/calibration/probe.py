"""What serving and loading cost on this machine now, seen from outside: through the gateway, one thing at a time."""

import asyncio
from dataclasses import dataclass
from random import Random
from statistics import median

import numpy as np

from benchmarks.scheduling.calibration.asking import Seen, ask
from benchmarks.scheduling.calibration.scene import Running
from benchmarks.series import BenchmarkBroken
from mesh.requests import StartKind
from sim.batch import Costs
from sim.request import Request

PROMPTS = (8, 32, 64, 128)
ROUNDS = 5
ANSWER = 24
BATCHES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Starts:
    """What a start takes beyond a warm one, in seconds: another replica's unload, the load, and pages touched first."""

    dram_s: float
    disk_s: float


@dataclass(frozen=True, slots=True)
class Probed:
    """What the simulator has to know."""

    costs: Costs
    starts: Starts


class Probe:
    """Asks for what it wants to know."""

    def __init__(self, cluster: Running, seed: int) -> None:
        self._cluster, self._random = cluster, Random(seed)

    async def all(self) -> Probed:
        """About two minutes."""
        first = self._cluster.models[0].name
        await self._ask(first)
        costs = await self._costs(first)
        return Probed(costs, await self._starts(costs))

    async def _costs(self, model: str) -> Costs:
        """Lines through first tokens by prompt, and through the steps of batches by sequences and by KV."""
        firsts = [(tokens, (await self._ask(model, tokens, 1)).first_s) for tokens in PROMPTS * ROUNDS]
        prefill_token_s, prefill_s = np.polyfit([t for t, _ in firsts], [s for _, s in firsts], 1)
        rows, steps = [], []
        for size in [size for size in BATCHES if size <= self._cluster.scene.slots] * ROUNDS:
            for tokens in (PROMPTS[0], PROMPTS[-1]):
                rows.append((1.0, float(size), size * (tokens + ANSWER / 2)))
                steps.append(await self._step_s(model, size, tokens))
        found, *_ = np.linalg.lstsq(np.array(rows), np.array(steps), rcond=None)
        step_s, sequence_s, token_s = (max(0.0, float(value)) for value in found)
        return Costs(float(prefill_s), float(prefill_token_s), step_s, sequence_s, token_s)

    async def _step_s(self, model: str, size: int, tokens: int) -> float:
        """Of a batch of `size`: the time between tokens of whoever began last, when all of them were there."""
        seen = await asyncio.gather(*(self._ask(model, tokens, ANSWER) for _ in range(size)))
        last = max(seen, key=lambda one: one.first_s)
        return (last.total_s - last.first_s) / (ANSWER - 1)

    async def _starts(self, costs: Costs) -> Starts:
        """In turn, one model more than workers have room for, then one more than the store has: each start pushes out a
        replica, and comes from memory or from disk."""
        names = [model.name for model in self._cluster.models]
        scene = self._cluster.scene
        few = names[: scene.residents * scene.workers + 1]
        seen = [await self._ask(name) for name in [*few, *few] * ROUNDS + names * ROUNDS]
        extra = {
            kind: [one.first_s - costs.prefill(PROMPTS[0]) for one in seen if one.start is kind]
            for kind in (StartKind.DRAM, StartKind.DISK)
        }
        if min(map(len, extra.values())) < ROUNDS:
            raise BenchmarkBroken("too few starts came from memory, or from disk; give the store another size")
        return Starts(median(extra[StartKind.DRAM]), median(extra[StartKind.DISK]))

    async def _ask(self, model: str, tokens: int = PROMPTS[0], answer: int = 1) -> Seen:
        return await ask(self._cluster.client, Request(0.0, model, tokens, answer), self._random)
