"""ReadUnitsResponse from the wire, by hand: protobuf's own parser would copy a megabyte out of every message."""

from dataclasses import dataclass

from mesh.errors import DataLoss

UNIT, OFFSET, DATA = 1, 2, 3  # field numbers
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
VARINT_BYTES = 10


@dataclass(frozen=True, slots=True)
class UnitChunk:
    """Bytes of a unit, by its index in the manifest; `offset` is within the unit. `data` keeps its message alive."""

    unit: int
    offset: int
    data: memoryview


def unit_chunk_from(message: bytes) -> UnitChunk:
    """The message, its data not copied. Fields that we do not know are skipped. Raises DataLoss if it is malformed."""
    view = memoryview(message)
    unit = offset = at = 0
    data = view[:0]
    while at < len(view):
        key, at = _varint(view, at)
        field, kind = key >> 3, key & 7
        if not 0 < field < 1 << 29:
            raise _malformed(f"field number {field}")
        if kind == VARINT:
            value, at = _varint(view, at)
            unit = value & 0xFFFFFFFF if field == UNIT else unit
            offset = value if field == OFFSET else offset
        elif kind == BYTES:
            length, at = _varint(view, at)
            start, at = at, _within(view, at + length)
            data = view[start:at] if field == DATA else data
        elif kind in {FIXED64, FIXED32}:
            at = _within(view, at + (8 if kind == FIXED64 else 4))
        else:
            raise _malformed(f"wire type {kind}")
    return UnitChunk(unit, offset, data)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next thing begins."""
    number = 0
    for index in range(VARINT_BYTES):
        byte = view[_within(view, at + index + 1) - 1]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if number >= 1 << 64:
                break
            return number, at + index + 1
    raise _malformed("a number of more than 64 bits")


def _within(view: memoryview, end: int) -> int:
    if end > len(view):
        raise _malformed("it ends early")
    return end


def _malformed(what: str) -> DataLoss:
    return DataLoss(f"the store sent a malformed ReadUnitsResponse: {what}", reason="BAD_STREAM")
