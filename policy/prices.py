"""What loads of one architecture take, for those who compare many: what is the same at all nodes is looked up once."""

from collections.abc import Mapping
from typing import Final, final

from mesh.facts import Tier
from policy.haul import Haul
from policy.knobs import Knobs
from policy.pace import Pace
from policy.rates import Rates

DRAM: Final = Tier.DRAM
DISK: Final = Tier.DISK
ORIGIN: Final = Tier.ORIGIN


@final
class Prices:
    """By the rates of one moment. A node that has not been seen is like the whole cluster."""

    __slots__ = ("_architecture", "_disk_s", "_dram_s", "_init_s", "_origin_s", "_rates")

    def __init__(self, rates: Rates, architecture: str, knobs: Knobs) -> None:
        per_s = knobs.bytes_per_s
        self._rates: Final = rates
        self._architecture: Final = architecture
        self._dram_s: Final = rates.byte_s(DRAM, "", 1 / per_s[DRAM])
        self._disk_s: Final = rates.byte_s(DISK, "", 1 / per_s[DISK])
        self._origin_s: Final = rates.byte_s(ORIGIN, "", 1 / per_s[ORIGIN])
        self._init_s: Final = rates.init_s("", architecture, knobs.init_s)

    def mean_s(self, load: Haul, beside: Mapping[Tier, int]) -> float:
        """Of estimate.load_work alone: until the replica is ready."""
        own = self._rates.pace(load.node)
        init_s = self._rates.own_init_s(own, load.node, self._architecture)
        took_s = self._init_s if init_s is None else init_s
        if load.dram_bytes:
            took_s += load.dram_bytes * (self._dram_s if own.dram_s is None else own.dram_s)
        if load.disk_bytes:
            took_s += load.disk_bytes * (self._disk_s if own.disk_s is None else own.disk_s)
        if load.origin_bytes:
            took_s += load.origin_bytes * (self._origin_s if own.origin_s is None else own.origin_s)
        if not beside:  # the usual case
            return took_s
        return took_s + sum([size * self._byte_s(own, tier) for tier, size in beside.items()])

    def _byte_s(self, own: Pace, tier: Tier) -> float:
        own_s = own.byte_s(tier)
        if own_s is not None:
            return own_s
        if tier is DISK:
            return self._disk_s
        return self._dram_s if tier is DRAM else self._origin_s
