"""A replica's KV over its tiers: blocks of the pool, and behind them the worker's host memory. What a sequence has
computed is found again wherever it lies; what is taken for new contents goes down first."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from services.worker.engine.batch import Paged, Saved
from services.worker.engine.beside import beside
from services.worker.engine.blocks import BlockAllocator, PrefixHit
from services.worker.engine.costs import Costs
from services.worker.engine.host_tier import HostTier
from services.worker.engine.numerics import FAST, Numerics
from services.worker.engine.pool import KVPool
from services.worker.engine.table import BlockTable


class KVCache:
    """Whoever takes blocks (`grow`) settles before anything is written to them. Of the pool's blocks, `blocks` are in
    use at first; 0: all."""

    def __init__(
        self,
        pool: KVPool,
        tier: HostTier,
        costs: Costs,
        numerics: Numerics = FAST,
        *,
        blocks: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.blocks = BlockAllocator(blocks or pool.blocks, pool.blocks)
        self.block_tokens = pool.spec.block_tokens
        self.found_tokens = 0  # in the pool or below it, instead of computed
        self.raised_tokens = 0  # of those, brought up from host memory
        self.beside = beside(pool)
        self._pool, self._tier, self._costs, self._numerics, self._clock = pool, tier, costs, numerics, clock
        self._found: dict[Paged, list[int | Tensor]] = {}  # of those let in: blocks, and rows that need one
        self._rising: list[tuple[int, Tensor]] = []  # blocks, and what is to be written there

    @property
    def layers(self) -> int:
        """Layers that have KV."""
        return len(self._pool.layers)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers."""
        return self._pool.spec.block_bytes

    def resize(self, blocks: int) -> None:
        """Have so many blocks in use, of those that the pool was made for. What goes must be idle; what it held goes
        down to host memory."""
        excess = self.blocks.total - blocks
        if excess > 0:
            parked = self.blocks.park(excess)
            self.settle()
            self._pool.give_back(parked)
        elif excess:
            self.blocks.unpark(-excess)

    def table(self) -> BlockTable:
        """An empty one over this pool."""
        return BlockTable(self.blocks, self.block_tokens)

    def find(self, generation: Paged) -> PrefixHit:
        """What `enter` would find; at least one token is left to compute."""
        chain = self._findable(generation)
        blocks, idle, known = self._reach(chain)
        if generation.saved is None:
            return PrefixHit(blocks, idle, known * self.block_tokens)
        if blocks + known < len(chain):  # what led it is gone, so what was saved is of no use
            self.forget(generation)
            return self.find(generation)
        return PrefixHit(blocks, idle, generation.saved.tokens - blocks * self.block_tokens)

    def enter(self, generation: Paged) -> None:
        """Hold what `find` found. What lies below the pool comes up once the sequence grows."""
        chain, found = self._findable(generation), list[int | Tensor]()
        while True:
            found += self.blocks.match(chain[len(found) :])
            rows = self._tier.find(chain[len(found) :]) if self._pays() else []
            self.raised_tokens += len(rows) * self.block_tokens
            found += rows
            if not rows:
                break
        generation.kv_len = len(found) * self.block_tokens
        self.found_tokens += generation.kv_len
        if generation.saved is not None:
            found += generation.saved.blocks.unbind(0)
            generation.kv_len = generation.saved.tokens
            self.forget(generation)
        self._found[generation] = found

    def grow(self, generation: Paged, tokens: int) -> None:
        """Own blocks for the first `tokens` tokens. Sequences that have entered keep what they hold first, since
        taking a block may cost others' contents."""
        for place, found in enumerate(self._found.pop(generation, ())):
            if isinstance(found, int):
                generation.table.adopt(found)
            else:
                generation.table.grow((place + 1) * self.block_tokens, generation.limit)
                self._rising.append((generation.table.blocks[place], found))
        generation.table.grow(tokens, generation.limit)

    def settle(self) -> None:
        """Carry down what was taken, then up what was found."""
        if evicted := self.blocks.evicted():
            self._lower(evicted)
        if self._rising:
            rising, self._rising = self._rising, []
            self._up([block for block, _ in rising], [row for _, row in rising])

    def publish(self, generation: Paged) -> None:
        """Let others find the blocks that have filled since."""
        tokens = self._numerics.shareable(generation.kv_len, generation.prompt_len)
        if tokens // self.block_tokens > generation.published:
            chain = generation.addresses(tokens, self.block_tokens)
            for i in range(generation.published, len(chain)):
                self.blocks.publish(generation.table.blocks[i], chain[i])
            generation.published = len(chain)

    def give_way(self, generation: Paged) -> None:
        """Free its blocks. Full ones can be found again for as long as pool and host memory hold them; what no
        address leads to is saved if copying it costs less than computing it. Where the numerics level has an answer's
        tokens computed one by one, it is saved whatever it costs."""
        kept = generation.published
        blocks = generation.table.blocks[kept : -(-generation.kv_len // self.block_tokens)]
        count_bytes, lost = len(blocks) * self.block_bytes, generation.kv_len - kept * self.block_tokens
        pays = self._tier.has_room(count_bytes) and self._costs.swap_pays(count_bytes, lost)
        if lost and (pays or self._numerics.cuts_prompts):
            generation.saved = Saved(generation.kv_len, kept, self._down(blocks))
            self._tier.lend(count_bytes)
        generation.table.clear()
        generation.kv_len = generation.published = 0

    def inherit(self, generation: Paged, former: Paged) -> None:
        """Have `generation` hold what `former` held, as far as their tokens agree and one is left to compute; the rest
        is freed. What others can find is not written to again."""
        common = generation.in_common(former)
        if former.saved is not None and former.saved.tokens <= common:
            generation.saved, former.saved = former.saved, None
        tokens = min(former.kv_len, common)
        if tokens // self.block_tokens < former.published:
            tokens -= tokens % self.block_tokens
        generation.kv_len = self._numerics.end_before(tokens, generation.prompt_len)
        generation.table, former.table = former.table, generation.table
        generation.table.shrink(generation.kv_len)
        self.leave(former)
        self.publish(generation)

    def leave(self, generation: Paged) -> None:
        """Free all that it holds, in the pool and below."""
        self.blocks.release([found for found in self._found.pop(generation, ()) if isinstance(found, int)])
        generation.table.clear()
        self.forget(generation)

    def forget(self, generation: Paged) -> None:
        """Drop what was saved of it."""
        if generation.saved is not None:
            self._tier.give_back(generation.saved.blocks.nbytes)
            generation.saved = None

    def layer_bytes(self, layer: int) -> int:
        """Bytes of one block of a layer."""
        return self._pool.spec.layer_block_bytes(layer)

    def read(self, layer: int, blocks: Sequence[int]) -> Tensor:
        """A layer's bytes [len(blocks), layer_bytes] of some blocks; a copy, on the pool's device."""
        return self._pool.read(layer, blocks)

    def write(self, layer: int, blocks: Sequence[int], data: Tensor) -> None:
        """Put what `read` gave into blocks that one sequence alone owns."""
        self._pool.write(layer, blocks, data)

    def unload(self) -> None:
        """Let go of the pool."""
        del self._pool, self.beside

    def _findable(self, generation: Paged) -> list[bytes]:
        """Addresses to look for: at least one token is left to compute, and where chunks are whole, so are hits."""
        tokens = self._numerics.shareable(len(generation.tokens) - 1, generation.prompt_len)
        chain = generation.addresses(tokens, self.block_tokens)
        if generation.saved is not None:
            return chain[: generation.saved.shared]
        return chain[: self._whole(chain)] if self._numerics.cuts_prompts else chain

    def _whole(self, chain: list[bytes]) -> int:
        """How many of the leading blocks are there and make whole chunks."""
        blocks, _, known = self._reach(chain)
        tokens = (blocks + known) * self.block_tokens
        return self._numerics.shareable(tokens, tokens) // self.block_tokens

    def _reach(self, chain: list[bytes]) -> tuple[int, int, int]:
        """Of the longest prefix of `chain` that is there: blocks in the pool, idle ones among them, blocks below it."""
        blocks = idle = known = 0
        while True:
            hit = self.blocks.peek(chain[blocks + known :])
            more = self._tier.known(chain[blocks + known + hit.blocks :]) if self._pays() else 0
            blocks, idle, known = blocks + hit.blocks, idle + hit.idle, known + more
            if not more:
                return blocks, idle, known

    def _pays(self) -> bool:
        return self._costs.swap_pays(self.block_bytes, self.block_tokens)

    def _lower(self, evicted: list[tuple[int, bytes]]) -> None:
        fresh = [(block, address) for block, address in evicted if not self._tier.touch(address)]
        if fresh and self._tier.has_room(self.block_bytes) and self._pays():
            rows = self._down([block for block, _ in fresh])
            for (_, address), row in zip(fresh, rows, strict=True):
                self._tier.keep(address, row)

    def _down(self, blocks: Sequence[int]) -> Tensor:
        started = self._clock()
        data = self._pool.read_all(blocks)
        self._costs.copied(data.nbytes, self._clock() - started)
        return data

    def _up(self, blocks: Sequence[int], rows: Sequence[Tensor]) -> None:
        started = self._clock()
        data = torch.stack(tuple(rows))
        self._pool.write_all(blocks, data)
        self._costs.copied(data.nbytes, self._clock() - started)
