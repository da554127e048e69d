"""What loads go by on one node, as far as it was learnt: kept at hand, for it is looked up for every node that a
decision looks at."""

from typing import Final, final

from mesh.facts import Tier


@final
class Pace:
    """Seconds a byte of each tier; None: not learnt yet. `inits_s` is what is not bytes, by architecture."""

    __slots__ = ("_disk_s", "_dram_s", "_origin_s", "inits_s")

    def __init__(self, dram_s: float | None, disk_s: float | None, origin_s: float | None) -> None:
        self._dram_s: Final = dram_s
        self._disk_s: Final = disk_s
        self._origin_s: Final = origin_s
        self.inits_s: Final[dict[str, float | None]] = {}

    def byte_s(self, tier: Tier) -> float | None:
        """Of one tier, DRAM, DISK or ORIGIN."""
        if tier is Tier.DISK:
            return self._disk_s
        return self._dram_s if tier is Tier.DRAM else self._origin_s
