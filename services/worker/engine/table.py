"""One sequence's blocks in order: growing along a lane, and the slots its tokens lie in."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.worker.engine.blocks import BlockAllocator

NO_LANE = range(0)
NO_IDS = np.empty(0, np.int64)


class BlockTable:
    """Blocks of one sequence. While they are consecutive (`first_slot` >= 0) its KV is one run of slots. `terms` counts
    how often it has given all of them up: within one, a full block does not change."""

    def __init__(self, allocator: BlockAllocator, block_tokens: int) -> None:
        self.blocks: list[int] = []
        self.terms = 0
        self._allocator = allocator
        self._block_tokens = block_tokens
        self._lane = NO_LANE
        self._consecutive = True
        self._slots: Tensor | None = None
        self._ids: NDArray[np.int64] = NO_IDS

    @property
    def block_ids(self) -> NDArray[np.int64]:
        """The blocks as an array, not to be changed; made when one has been added."""
        if len(self._ids) != len(self.blocks):
            self._ids = np.array(self.blocks, np.int64)
        return self._ids

    @property
    def first_slot(self) -> int:
        """Slot of token 0 if the KV is one run, else -1."""
        return self.blocks[0] * self._block_tokens if self._consecutive else -1

    def missing(self, tokens: int) -> int:
        """How many more blocks `tokens` tokens need."""
        return max(0, -(-tokens // self._block_tokens) - len(self.blocks))

    def adopt(self, block: int) -> None:
        """Go on with a block that the allocator has referenced for this sequence."""
        self._append(block)

    def grow(self, tokens: int, expected: int) -> None:
        """Own blocks for `tokens` tokens; `expected` is how long the sequence may become in the end."""
        for _ in range(self.missing(tokens)):
            block = self._next(expected)
            self._allocator.take(block)
            self._append(block)

    def slot_range(self, start: int, end: int) -> Sequence[int]:
        """Where tokens `start` to `end` lie, for writing them."""
        if self._consecutive:
            return range(self.first_slot + start, self.first_slot + end)
        size = self._block_tokens
        return [self.blocks[token // size] * size + token % size for token in range(start, end)]

    def slot(self, token: int) -> int:
        """Where one token lies."""
        return self.blocks[token // self._block_tokens] * self._block_tokens + token % self._block_tokens

    def slots(self, tokens: int) -> Tensor:
        """Slots of the first `tokens` tokens, for gathering: int64 [tokens] on the CPU."""
        if self._slots is None or len(self._slots) < tokens:
            starts = torch.tensor(self.blocks)[:, None] * self._block_tokens
            self._slots = (starts + torch.arange(self._block_tokens)).flatten()
        return self._slots[:tokens]

    def shrink(self, tokens: int) -> None:
        """Release the blocks behind those of the first `tokens` tokens."""
        keep = -(-tokens // self._block_tokens)
        if keep == 0:
            self.clear()
        elif keep < len(self.blocks):
            self._allocator.release(self.blocks[keep:])
            del self.blocks[keep:]
            self._slots, self._ids = None, NO_IDS
            self._consecutive = self.blocks == list(range(self.blocks[0], self.blocks[0] + keep))

    def clear(self) -> None:
        """Release every block; published ones stay cached."""
        self._allocator.release(self.blocks, self._lane)
        self.blocks = []
        self.terms += 1
        self._lane, self._consecutive, self._slots, self._ids = NO_LANE, True, None, NO_IDS

    def sole(self) -> int:
        """How many blocks `clear` would make idle."""
        return self._allocator.sole(self.blocks)

    def _next(self, expected: int) -> int:
        after = self.blocks[-1] + 1 if self.blocks else -1
        in_lane = after in self._lane and self._allocator.is_idle(after)
        if not in_lane and not self._allocator.is_blank(after):
            self._lane = self._allocator.lane(max(1, self.missing(expected)))
            after = self._lane.start
        return after

    def _append(self, block: int) -> None:
        self._consecutive = self._consecutive and (not self.blocks or block == self.blocks[-1] + 1)
        self.blocks.append(block)
