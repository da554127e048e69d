"""What loads go by on one node, as far as it was learnt: kept at hand, for it is looked up for every node that a
decision looks at."""

from typing import Final, final

from mesh.facts import Tier

DRAM: Final = Tier.DRAM
DISK: Final = Tier.DISK


@final
class Pace:
    """Seconds a byte of each tier; None: not learnt yet. `inits_s` is what is not bytes, by architecture."""

    __slots__ = ("disk_s", "dram_s", "inits_s", "origin_s")

    def __init__(self, dram_s: float | None, disk_s: float | None, origin_s: float | None) -> None:
        self.dram_s: Final = dram_s
        self.disk_s: Final = disk_s
        self.origin_s: Final = origin_s
        self.inits_s: Final[dict[str, float | None]] = {}

    def byte_s(self, tier: Tier) -> float | None:
        """Of one tier, DRAM, DISK or ORIGIN."""
        if tier is DISK:
            return self.disk_s
        return self.dram_s if tier is DRAM else self.origin_s
