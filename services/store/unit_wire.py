"""ReadUnitsResponse for the wire, by hand: protobuf would copy each megabyte twice more."""

from services.store.reads import Chunk

UNIT, OFFSET, DATA = 0x08, 0x10, 0x1A  # field number << 3 | wire type


def unit_chunk_to(chunk: Chunk) -> bytes:
    """The message, with the one copy that grpc cannot do without. As in any proto3 message, what is 0 is left out."""
    header = bytearray()
    if chunk.unit:
        header += bytes([UNIT]) + _varint(chunk.unit)
    if chunk.offset:
        header += bytes([OFFSET]) + _varint(chunk.offset)
    if len(chunk.data):
        header += bytes([DATA]) + _varint(len(chunk.data))
    return b"".join((header, chunk.data))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
