"""A replica's share of the KV memory of its engine: what it wants of it, and how it makes do with another."""

import itertools

from services.worker.engine.kv_cache import KVCache
from services.worker.engine.next_step import NextStep
from services.worker.engine.request import TokenStep
from services.worker.engine.roster import Roster
from services.worker.engine.shares import Claim

LEAST = 8  # an idle replica keeps this part of what was booked: its next request starts at once
GRAIN = 16  # needs are rounded up to this part of it, so that not every new block moves memory


class KVShare:
    """`booked` and `most` in blocks; equal where memory cannot be lent."""

    def __init__(self, cache: KVCache, roster: Roster, next_step: NextStep, *, booked: int, most: int) -> None:
        self._cache, self._roster, self._next_step = cache, roster, next_step
        self._booked, self._most = booked, most
        self._least = booked if most == booked else max(1, booked // LEAST)

    @property
    def presses(self) -> bool:
        """Whether the replica wants more than it has; cheap, for it is asked before each of its steps."""
        blocks = self._cache.blocks
        return blocks.total < self._most and blocks.idle < self._wanted()

    def claim(self) -> Claim:
        """Its part in dividing the memory."""
        blocks, size = self._cache.blocks, self._cache.block_bytes
        grain = max(1, self._booked // GRAIN)
        need = -(-(blocks.total - blocks.idle + self._wanted()) // grain) * grain
        return Claim(
            booked=self._booked * size,
            share=blocks.total * size,
            need=need * size,
            least=self._least * size,
            most=self._most * size,
        )

    def resize(self, kv_bytes: int) -> list[TokenStep]:
        """Have so much from now on. If less than is in use, the youngest give way; what that ended is returned."""
        blocks = min(kv_bytes // self._cache.block_bytes, self._most)
        while self._cache.blocks.total - self._cache.blocks.idle > blocks:
            self._next_step.free_some()
        self._cache.resize(blocks)
        return self._next_step.ended()

    def _wanted(self) -> int:
        """Blocks that its sequences lack for the tokens they have, and the next one; of those that wait, as many as
        may run."""
        queued = itertools.islice(self._roster.waiting, self._next_step.limits.running)
        return sum(one.table.missing(len(one.tokens) + 1) for one in itertools.chain(self._roster.running, queued))
