"""What is in memory of one checkpoint: some of its segments, and the units that lie in them whole."""

from collections.abc import Iterator

from mesh.checkpoint.layout import Manifest, Unit
from services.store.memory import PartMemory, Place, extents
from services.store.segments import Segment


class Resident:
    """Units arrive when they are filled; the tail can be given up, and with each segment every unit that it cuts."""

    def __init__(self, manifest: Manifest, segment_bytes: int) -> None:
        self.manifest = manifest
        self.parts = tuple(PartMemory(part, segment_bytes) for part in manifest.parts)
        self.extents = extents(manifest)
        self.units: set[int] = set()
        self.unit_bytes = 0  # of the units that are here, padding included
        self.used_s = 0.0
        self._by_hash = {unit.hash: index for index, unit in enumerate(manifest.units)}

    @property
    def digest(self) -> str:
        """The checkpoint's name."""
        return self.manifest.digest

    @property
    def whole(self) -> bool:
        """Whether all of it is here."""
        return len(self.units) == len(self.extents) and not any(self.gaps())

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Its segments, part after part."""
        return tuple(segment for part in self.parts for segment in part.segments if segment)

    @property
    def held_bytes(self) -> int:
        """Bytes of its segments."""
        return sum(segment.bytes for segment in self.segments)

    def gaps(self) -> Iterator[tuple[PartMemory, int]]:
        """Where segments are missing: a part's memory, and the index in it."""
        for part in self.parts:
            for index, segment in enumerate(part.segments):
                if segment is None:
                    yield part, index

    def missing(self) -> list[int]:
        """The units that are not here, in the order of a forward pass."""
        return [index for index in range(len(self.extents)) if index not in self.units]

    def find(self, unit: Unit) -> int | None:
        """The index of a unit that is here and has the same bytes."""
        index = self._by_hash.get(unit.hash)
        if index is None or index not in self.units or self.manifest.units[index].bytes != unit.bytes:
            return None
        return index

    def place(self, unit: int) -> Place:
        """Where a unit lies."""
        return Place(self.parts[self.manifest.units[unit].part], self.extents[unit][0])

    def arrived(self, unit: int) -> None:
        """Its bytes are here, and right."""
        if unit not in self.units:
            start, end = self.extents[unit]
            self.units.add(unit)
            self.unit_bytes += end - start

    def take_tail(self, least_bytes: int) -> list[Segment]:
        """Gives up its last segments until they are at least so many bytes."""
        taken: list[Segment] = []
        for part in reversed(self.parts):
            for index in reversed(range(len(part.segments))):
                if least_bytes <= 0:
                    break
                if segment := part.take(index):
                    taken.append(segment)
                    least_bytes -= segment.bytes
        self._drop_torn()
        return taken

    def take_useless(self) -> list[Segment]:
        """Gives up the segments in which no unit lies that is here."""
        useful = {(self.manifest.units[unit].part, index) for unit in self.units for index in self._covering(unit)}
        places = [(number, index) for number, part in enumerate(self.parts) for index in range(len(part.segments))]
        taken = [self.parts[number].take(index) for number, index in places if (number, index) not in useful]
        return [segment for segment in taken if segment]

    def _drop_torn(self) -> None:
        for unit in [unit for unit in self.units if self._torn(unit)]:
            start, end = self.extents[unit]
            self.units.discard(unit)
            self.unit_bytes -= end - start

    def _torn(self, unit: int) -> bool:
        part = self.parts[self.manifest.units[unit].part]
        return any(part.segments[index] is None for index in self._covering(unit))

    def _covering(self, unit: int) -> range:
        start, end = self.extents[unit]
        return self.parts[self.manifest.units[unit].part].covering(start, end)
