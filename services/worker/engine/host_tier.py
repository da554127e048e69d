"""Host memory for KV blocks that the pools of a worker's replicas gave up. Bounded in bytes; only the engine's thread
calls it."""

from collections import OrderedDict
from collections.abc import Iterable

from torch import Tensor


class HostTier:
    """Blocks by address, the least recently used going first; and room lent to sequences that have given way."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.cached_bytes = 0
        self.lent_bytes = 0
        self._blocks: OrderedDict[bytes, Tensor] = OrderedDict()

    def touch(self, address: bytes) -> bool:
        """Whether a block is here; if so, it is now the youngest."""
        if address in self._blocks:
            self._blocks.move_to_end(address)
        return address in self._blocks

    def keep(self, address: bytes, block: Tensor) -> None:
        """Hold a copy of a block that is not here, as the youngest."""
        self._blocks[address] = block.clone()  # it may be a row of something larger, which would live on
        self.cached_bytes += block.nbytes
        self._trim()

    def known(self, chain: Iterable[bytes]) -> int:
        """How many leading addresses of `chain` are here."""
        count = 0
        for address in chain:
            if address not in self._blocks:
                break
            count += 1
        return count

    def find(self, chain: Iterable[bytes]) -> list[Tensor]:
        """The blocks of the longest prefix of `chain` that is here. They stay here, as the youngest."""
        found = []
        for address in chain:
            if address not in self._blocks:
                break
            self._blocks.move_to_end(address)
            found.append(self._blocks[address])
        return found

    def has_room(self, count_bytes: int) -> bool:
        """Whether so much could be lent within the capacity."""
        return self.lent_bytes + count_bytes <= self.capacity_bytes

    def lend(self, count_bytes: int) -> None:
        """Count memory that somebody else holds; cached blocks make room. May exceed the capacity: exactness can
        demand it, and what has given way never exceeds the pools that it was in."""
        self.lent_bytes += count_bytes
        self._trim()

    def give_back(self, count_bytes: int) -> None:
        """End a loan."""
        self.lent_bytes -= count_bytes

    def _trim(self) -> None:
        while self._blocks and self.cached_bytes + self.lent_bytes > self.capacity_bytes:
            _, block = self._blocks.popitem(last=False)
            self.cached_bytes -= block.nbytes
