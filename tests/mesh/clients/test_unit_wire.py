"""The hand-written parser agrees with protobuf's on every message, and with nothing else."""

from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from whimbrel.store.v1 import store_pb2 as pb

from mesh.clients.unit_wire import unit_chunk_from
from mesh.errors import DataLoss

MEGABYTE = pb.ReadUnitsResponse(unit=3, offset=1 << 40, data=bytes(1 << 20)).SerializeToString()


def varint(number: int) -> bytes:
    """As protobuf writes numbers."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def unknown(field: int, kind: int, value: int) -> bytes:
    """A field that a newer store might add."""
    content = {0: varint(value), 1: value.to_bytes(8, "little"), 2: varint(3) + b"abc", 5: (value >> 32).to_bytes(4)}
    return varint(field << 3 | kind) + content[kind]


messages = st.builds(
    pb.ReadUnitsResponse,
    unit=st.integers(0, 2**32 - 1),
    offset=st.integers(0, 2**64 - 1),
    data=st.binary(max_size=300),
).map(pb.ReadUnitsResponse.SerializeToString)
unknowns = st.builds(unknown, st.integers(4, 2**29 - 1), st.sampled_from([0, 1, 2, 5]), st.integers(0, 2**64 - 1))


def agree(message: bytes) -> None:
    """Both parsers give the same, or both refuse."""
    try:
        chunk = unit_chunk_from(message)
    except DataLoss:
        with pytest.raises(DecodeError):
            pb.ReadUnitsResponse.FromString(message)
        return
    expected = pb.ReadUnitsResponse.FromString(message)
    assert (chunk.unit, chunk.offset, bytes(chunk.data)) == (expected.unit, expected.offset, expected.data)


@given(st.lists(messages | unknowns, max_size=4).map(b"".join))
def test_fields_in_any_order_repeated_and_unknown_are_read_as_protobuf_reads_them(message: bytes) -> None:
    agree(message)


@given(messages, st.data())
def test_what_is_cut_off_is_refused_as_protobuf_refuses_it(message: bytes, data: st.DataObject) -> None:
    agree(message[: data.draw(st.integers(0, len(message)))])


@given(st.binary(max_size=40))
def test_arbitrary_bytes_never_give_what_protobuf_would_refuse(message: bytes) -> None:
    with suppress(DataLoss):  # groups, which nobody writes, are refused by us alone
        chunk = unit_chunk_from(message)
        expected = pb.ReadUnitsResponse.FromString(message)
        assert (chunk.unit, chunk.offset, bytes(chunk.data)) == (expected.unit, expected.offset, expected.data)


def test_the_payload_is_not_copied() -> None:
    chunk = unit_chunk_from(MEGABYTE)
    assert chunk.data.obj is MEGABYTE
    assert (chunk.unit, chunk.offset, len(chunk.data)) == (3, 1 << 40, 1 << 20)


@pytest.mark.parametrize(
    "message",
    [
        b"\x08",  # a key without a value
        b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 2**64 - 1 bytes of data
        b"\x1a\x05abc",  # more data than there is
        b"\x00\x01",  # field 0
        b"\x0c",  # the end of a group
        b"\x08" + b"\xff" * 11,  # a number without end
        MEGABYTE[:-1],
    ],
)
def test_a_malformed_message_is_data_loss(message: bytes) -> None:
    with pytest.raises(DataLoss) as bad:
        unit_chunk_from(message)
    assert bad.value.reason == "BAD_STREAM"
