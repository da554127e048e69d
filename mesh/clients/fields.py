"""Protobuf messages that carry megabytes, by hand: protobuf itself would copy each of them twice more."""

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.errors import DataLoss

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
VARINT_BYTES = 10
NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: `number` of a varint or a fixed one, else `data`, not copied."""

    key: tuple[int, int]  # its number and its wire type
    number: int = 0
    data: memoryview = NOTHING


def fields(message: memoryview, name: str) -> Iterator[Field]:
    """Each field, in order. Raises DataLoss, which says that `name` is malformed."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at, name)
        field, kind = key >> 3, key & 7
        if not 0 < field < 1 << 29:
            raise _malformed(name, f"field number {field}")
        if kind == VARINT:
            value, at = _varint(message, at, name)
            yield Field((field, kind), value)
        elif kind == BYTES:
            length, at = _varint(message, at, name)
            start, at = at, _within(message, at + length, name)
            yield Field((field, kind), data=message[start:at])
        elif kind in {FIXED64, FIXED32}:
            start, at = at, _within(message, at + (8 if kind == FIXED64 else 4), name)
            yield Field((field, kind), int.from_bytes(message[start:at], "little"))
        else:
            raise _malformed(name, f"wire type {kind}")


def numbers_from(packed: memoryview, name: str) -> list[int]:
    """The varints of a packed repeated field."""
    numbers, at = list[int](), 0
    while at < len(packed):
        number, at = _varint(packed, at, name)
        numbers.append(number)
    return numbers


def number_to(field: int, number: int) -> bytes:
    """A varint field; nothing for 0, as in any proto3 message."""
    return varint_to(field << 3 | VARINT) + varint_to(number) if number else b""


def fixed_to(field: int, number: int) -> bytes:
    """A fixed64 field; nothing for 0."""
    return varint_to(field << 3 | FIXED64) + number.to_bytes(8, "little") if number else b""


def bytes_head(field: int, length: int) -> bytes:
    """What stands before the `length` bytes of a field."""
    return varint_to(field << 3 | BYTES) + varint_to(length)


def varint_to(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varint(view: memoryview, at: int, name: str) -> tuple[int, int]:
    """The number at `at`, and where the next thing begins."""
    number = 0
    for index in range(VARINT_BYTES):
        byte = view[_within(view, at + index + 1, name) - 1]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if number >= 1 << 64:
                break
            return number, at + index + 1
    raise _malformed(name, "a number of more than 64 bits")


def _within(view: memoryview, end: int, name: str) -> int:
    if end > len(view):
        raise _malformed(name, "it ends early")
    return end


def _malformed(name: str, what: str) -> DataLoss:
    return DataLoss(f"a peer sent a malformed {name}: {what}", reason="BAD_STREAM")
