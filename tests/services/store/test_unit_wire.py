"""ReadUnitsResponse made by hand is what protobuf would make."""

from hypothesis import given
from hypothesis import strategies as st
from whimbrel.store.v1 import store_pb2 as pb

from services.store.reads import Chunk
from services.store.unit_wire import unit_chunk_to


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=300))
def test_any_chunk_is_the_very_message(unit: int, offset: int, data: bytes) -> None:
    message = pb.ReadUnitsResponse(unit=unit, offset=offset, data=data)
    assert unit_chunk_to(Chunk(unit, offset, memoryview(data))) == message.SerializeToString(deterministic=True)
