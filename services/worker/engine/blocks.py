"""Who owns which KV block: reference counts, content addresses, and reuse of what nobody references.
Knows no tensors; all calls come from the engine thread."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.worker.engine.errors import PoolExhausted

BUSY = np.iinfo(np.int64).max
BLANK = 0


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """How much of a sequence's KV is there already. `blocks` lead it in the pool, `idle` of which nobody references
    now; the `beyond` tokens after those wait in host memory, and need blocks."""

    blocks: int = 0
    idle: int = 0
    beyond: int = 0


def chain_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Address of a full block: its tokens and everything before them."""
    return hashlib.blake2b(parent + array("i", tokens).tobytes(), digest_size=16).digest()


class BlockAllocator:
    """A block is referenced (count > 0), cached (published, count 0) or blank. The last two are idle. Or it is parked:
    out of use, and not counted in `total`.

    `_age` holds one number a block: BUSY if referenced, BLANK if it holds nothing, else a tick that grows with
    each use, so the least recently used idle blocks have the smallest ages.
    """

    def __init__(self, total: int, most: int = 0) -> None:
        """`total` blocks are in use; up to `most` can be."""
        self._most = max(total, most)
        self.total = total
        self.idle = total
        self._references = [0] * total
        self._hashes: list[bytes | None] = [None] * total
        self._cached: dict[bytes, int] = {}
        self._age: NDArray[np.int64] = np.full(total, BLANK, dtype=np.int64)
        self._tick = BLANK
        self._parked: list[int] = []  # out of use, the first of the pool last; those never used have no place yet
        self._extent = total  # nothing from here on is in use
        self._evicted: list[tuple[int, bytes]] = []

    def peek(self, chain: Iterable[bytes]) -> PrefixHit:
        """What `match` would find, changing nothing."""
        blocks = idle = 0
        for address in chain:
            block = self._cached.get(address)
            if block is None:
                break
            blocks += 1
            idle += self._references[block] == 0
        return PrefixHit(blocks, idle)

    def match(self, chain: Iterable[bytes]) -> list[int]:
        """Reference the blocks of the longest cached prefix of `chain`; release them like taken ones."""
        blocks: list[int] = []
        for address in chain:
            block = self._cached.get(address)
            if block is None:
                break
            self._reference(block)
            blocks.append(block)
        return blocks

    def take(self, block: int) -> None:
        """Reference an idle block for new contents; PoolExhausted if somebody references it."""
        if self._references[block]:
            raise PoolExhausted(f"block {block} is in use")
        self._forget(block)
        self._reference(block)

    def lane(self, wanted: int) -> range:
        """Up to `wanted` (or half, a quarter, ...) consecutive idle blocks, the least recently used such run.

        They stay idle, and younger than other idle blocks, so that other lanes are looked for elsewhere first:
        a sequence that fills its lane in order reads its KV as one run of memory, without a copy.
        """
        if not self.idle:
            raise PoolExhausted("no KV block is idle")
        count = min(wanted, self.total)
        while True:
            youngest = _sliding_max(self._age[: self._extent], count)  # in each window; BUSY if any of it is
            start = len(youngest) - 1 - int(youngest[::-1].argmin())
            if youngest[start] != BUSY:
                self._tick += 1
                self._age[start : start + count] = self._tick
                return range(start, start + count)
            count //= 2

    def is_idle(self, block: int) -> bool:
        """Whether `take` would succeed."""
        return 0 <= block < self._extent and not self._references[block]

    def is_blank(self, block: int) -> bool:
        """Whether taking it would cost no cached contents either."""
        return self.is_idle(block) and self._hashes[block] is None

    def publish(self, block: int, address: bytes) -> None:
        """Let others find this full, referenced block. A second block of the same contents stays private."""
        if self._hashes[block] is None and address not in self._cached:
            self._hashes[block] = address
            self._cached[address] = block

    def release(self, blocks: Sequence[int], lane: range = range(0)) -> None:
        """Give back one reference each, and the unused rest of a lane. Heads of chains stay longest."""
        for block in reversed(blocks):
            self._dereference(block)
        for block in lane:
            if self.is_blank(block):
                self._age[block] = BLANK

    def sole(self, blocks: Iterable[int]) -> int:
        """How many of `blocks` would become idle if one reference to each were released."""
        return sum(self._references[block] == 1 for block in blocks)

    def park(self, count: int) -> list[int]:
        """Take `count` idle blocks out of use, which: blank ones from the end, then the least recently used."""
        idle = np.flatnonzero(self._age != BUSY)
        if count > len(idle):
            raise PoolExhausted(f"{count} blocks are to be parked, and {len(idle)} are idle")
        blocks: list[int] = idle[np.lexsort((-idle, self._age[idle]))[:count]].tolist()
        for block in blocks:
            self.take(block)
        self._park([*self._parked, *blocks], -count)
        return blocks

    def unpark(self, count: int) -> None:
        """Put blocks back into use, those at the start first; as many as are parked if `count` is more."""
        back = self._parked[-count:] if count else []
        fresh = min(count - len(back), self._most - len(self._references))
        self._park(self._parked[: len(self._parked) - len(back)], len(back))
        for block in back:
            self._dereference(block)
        self._extend(fresh)

    def evicted(self) -> list[tuple[int, bytes]]:
        """Blocks that were taken since this was last asked although they held something, and its addresses: their
        contents last until somebody writes."""
        evicted, self._evicted = self._evicted, []
        return evicted

    def _extend(self, count: int) -> None:
        """Blocks that are used for the first time."""
        if count:
            self._references += [0] * count
            self._hashes += [None] * count
            self._age = np.concatenate([self._age, np.full(count, BLANK, dtype=np.int64)])
            self.idle += count
            self._park(self._parked, count)

    def _park(self, parked: list[int], total_change: int) -> None:
        self._parked = sorted(parked, reverse=True)
        self.total += total_change
        self._extent = len(self._references)
        for block in self._parked:
            if block != self._extent - 1:
                break
            self._extent = block

    def _reference(self, block: int) -> None:
        if not self._references[block]:
            self.idle -= 1
            self._age[block] = BUSY
        self._references[block] += 1

    def _dereference(self, block: int) -> None:
        if not self._references[block]:
            raise AssertionError(f"block {block} released twice")
        self._references[block] -= 1
        if not self._references[block]:
            self.idle += 1
            self._tick += 1
            self._age[block] = BLANK if self._hashes[block] is None else self._tick

    def _forget(self, block: int) -> None:
        address = self._hashes[block]
        if address is not None:
            del self._cached[address]
            self._hashes[block] = None
            self._evicted.append((block, address))


def _sliding_max(values: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Maximum of each window of `width`, by doubling: O(n log width)."""
    done = 1
    while done * 2 <= width:
        values = np.maximum(values[:-done], values[done:])
        done *= 2
    rest = width - done
    return np.maximum(values[: len(values) - rest], values[rest:]) if rest else values
