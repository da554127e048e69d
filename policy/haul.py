"""What a load has to bring: bytes of each tier, and what they pass through."""

from collections.abc import Iterator
from typing import Final, NamedTuple, final

from mesh.facts import Tier

DRAM: Final = Tier.DRAM
DISK: Final = Tier.DISK
ORIGIN: Final = Tier.ORIGIN


class Lane(NamedTuple):
    """What bytes pass through, of one load after another: a device's bus, a node's disk, its network."""

    tier: Tier
    at: str  # a worker for DRAM, else a node


@final
class Haul:
    """Bytes of each tier that a worker is to get, for a model of some architecture. The nearest come first. One is made
    for each node that a decision looks at, so it is no dataclass (docs/decisions/0046)."""

    __slots__ = ("architecture", "disk_bytes", "dram_bytes", "node", "origin_bytes", "worker_id")

    def __init__(
        self,
        worker_id: str,
        node: str,
        architecture: str = "",
        *,
        dram_bytes: int = 0,
        disk_bytes: int = 0,
        origin_bytes: int = 0,
    ) -> None:
        self.worker_id: Final = worker_id
        self.node: Final = node
        self.architecture: Final = architecture
        self.dram_bytes: Final = dram_bytes
        self.disk_bytes: Final = disk_bytes
        self.origin_bytes: Final = origin_bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Haul) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Haul{self._key()}"

    @property
    def bytes(self) -> int:
        """Of all tiers."""
        return self.dram_bytes + self.disk_bytes + self.origin_bytes

    @property
    def farthest(self) -> Tier:
        """Where its last bytes come from; an empty one has them all."""
        return next((lane.tier for lane, _ in reversed(tuple(self.lanes()))), Tier.DEVICE)

    def lanes(self) -> Iterator[tuple[Lane, int]]:
        """What it passes through, with how much; the nearest first."""
        if self.dram_bytes:
            yield Lane(DRAM, self.worker_id), self.dram_bytes
        if self.disk_bytes:
            yield Lane(DISK, self.node), self.disk_bytes
        if self.origin_bytes:
            yield Lane(ORIGIN, self.node), self.origin_bytes

    def of(self, tier: Tier) -> int:
        """Bytes of one tier."""
        if tier is DRAM:
            return self.dram_bytes
        return self.disk_bytes if tier is DISK else self.origin_bytes

    def to(self, worker_id: str) -> "Haul":
        """The same, to another worker of the node."""
        return self._of(worker_id, self.dram_bytes, self.disk_bytes, self.origin_bytes)

    def plus(self, other: "Haul") -> "Haul":
        """Both, to the same worker: an adapter's bytes, and its base's."""
        disk, origin = self.disk_bytes + other.disk_bytes, self.origin_bytes + other.origin_bytes
        return self._of(self.worker_id, self.dram_bytes + other.dram_bytes, disk, origin)

    def less(self, done_bytes: int) -> "Haul":
        """What is left once so many have come."""
        dram = max(0, self.dram_bytes - done_bytes)
        beyond = max(0, done_bytes - self.dram_bytes)
        disk = max(0, self.disk_bytes - beyond)
        origin = max(0, self.origin_bytes - max(0, beyond - self.disk_bytes))
        return self._of(self.worker_id, dram, disk, origin)

    def _of(self, worker_id: str, dram: int, disk: int, origin: int) -> "Haul":
        return Haul(worker_id, self.node, self.architecture, dram_bytes=dram, disk_bytes=disk, origin_bytes=origin)

    def _key(self) -> tuple[str, str, str, int, int, int]:
        return self.worker_id, self.node, self.architecture, self.dram_bytes, self.disk_bytes, self.origin_bytes
