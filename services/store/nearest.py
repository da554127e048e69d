"""Where each of the wanted units is to come from: the nearest place that has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.facts import Tier
from services.store.catalog import Stored
from services.store.memory import Place
from services.store.tiers import DramPool


@dataclass(frozen=True, slots=True)
class Nearest:
    """Every wanted unit is in one of three: `places` in memory, `on_disk`, or `absent` from this node.

    `lenders` are the checkpoints that the places belong to; pin them while the bytes are being copied.
    """

    places: Mapping[int, Place]
    lenders: frozenset[str]
    on_disk: tuple[int, ...]
    absent: tuple[int, ...]

    @property
    def farthest(self) -> Tier:
        """The farthest tier that any of the units is in."""
        if self.absent:
            return Tier.ORIGIN
        return Tier.DISK if self.on_disk else Tier.DRAM


def nearest(units: Sequence[int], stored: Stored, dram: DramPool) -> Nearest:
    """Looks in memory, whichever checkpoint lies there, for equal hashes are equal bytes; then on the disk."""
    places: dict[int, Place] = {}
    lenders: set[str] = set()
    on_disk: list[int] = []
    absent: list[int] = []
    disk = stored.units_on_disk
    for index in units:
        if found := dram.find(stored.manifest.units[index]):
            resident, same = found
            places[index] = resident.place(same)
            lenders.add(resident.digest)
        else:
            (on_disk if index in disk else absent).append(index)
    return Nearest(places, frozenset(lenders), tuple(on_disk), tuple(absent))
