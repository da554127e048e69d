"""ReadUnitsResponse for the wire, by hand: protobuf would copy each megabyte twice more."""

from mesh.clients.fields import bytes_head, number_to
from services.store.reads import Chunk

UNIT, OFFSET, DATA = 1, 2, 3  # field numbers


def unit_chunk_to(chunk: Chunk) -> bytes:
    """The message, with the one copy that grpc cannot do without. As in any proto3 message, what is 0 is left out."""
    size = len(chunk.data)
    head = number_to(UNIT, chunk.unit) + number_to(OFFSET, chunk.offset)
    return b"".join((head, bytes_head(DATA, size) if size else b"", chunk.data))
