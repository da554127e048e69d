"""ReadUnitsResponse from the wire, by hand: protobuf's own parser would copy a megabyte out of every message."""

from dataclasses import dataclass

from mesh.clients.fields import BYTES, NOTHING, VARINT, fields

UNIT, OFFSET, DATA = (1, VARINT), (2, VARINT), (3, BYTES)


@dataclass(frozen=True, slots=True)
class UnitChunk:
    """Bytes of a unit, by its index in the manifest; `offset` is within the unit. `data` keeps its message alive."""

    unit: int
    offset: int
    data: memoryview


def unit_chunk_from(message: bytes) -> UnitChunk:
    """The message, its data not copied. Fields that we do not know are skipped. Raises DataLoss if it is malformed."""
    unit = offset = 0
    data = NOTHING
    for field in fields(memoryview(message), "ReadUnitsResponse"):
        if field.key == UNIT:
            unit = field.number & 0xFFFFFFFF
        elif field.key == OFFSET:
            offset = field.number
        elif field.key == DATA:
            data = field.data
    return UnitChunk(unit, offset, data)
