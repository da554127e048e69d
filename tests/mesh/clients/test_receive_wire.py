"""What is written and read by hand is what protobuf would write and read."""

from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from whimbrel.worker.v1 import worker_pb2 as pb

from mesh.clients.receive_wire import Blocks, Manifest, Opening, StateTensor, part_from, part_to
from mesh.errors import DataLoss

small, large = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
data, names = st.binary(max_size=300), st.text(max_size=9)
MEGABYTE = pb.ReceiveRequest(blocks=pb.Blocks(layers=2, blocks=3, data=bytes(1 << 20))).SerializeToString()


@given(st.tuples(small, small, small, small), st.lists(data, max_size=3), large)
def test_any_blocks_are_the_very_message(places: tuple[int, int, int, int], pieces: list[bytes], checksum: int) -> None:
    views = tuple(memoryview(piece) for piece in pieces)
    message = pb.ReceiveRequest.FromString(part_to(Blocks(*places, views, checksum))).blocks
    assert (message.first_layer, message.layers, message.first_block, message.blocks) == places
    assert (message.data, message.checksum) == (b"".join(pieces), checksum)
    read = part_from(pb.ReceiveRequest(blocks=message).SerializeToString())
    assert read == Blocks(*places, (memoryview(message.data),), checksum)


@given(names, names, st.lists(st.integers(0, 2**63 - 1), max_size=4), st.tuples(large, large), data)
def test_any_tensor_is_the_very_message(
    path: str, dtype: str, shape: list[int], numbers: tuple[int, int], content: bytes
) -> None:
    offset, checksum = numbers
    tensor = StateTensor(path, dtype, tuple(shape), offset, memoryview(content), checksum)
    message = pb.ReceiveRequest.FromString(part_to(tensor)).tensor
    assert (message.path, message.dtype, list(message.shape)) == (path, dtype, shape)
    assert (message.offset, message.data, message.checksum) == (offset, content, checksum)
    assert part_from(pb.ReceiveRequest(tensor=message).SerializeToString()) == tensor


@pytest.mark.parametrize("part", [Opening("m/0", b"\x00layout"), Manifest((1, 2, 2**32 - 1), 2, '{"/a": 1}')])
def test_what_is_small_comes_back_as_it_went(part: Opening | Manifest) -> None:
    assert part_from(part_to(part)) == part


def test_the_payload_is_not_copied() -> None:
    blocks = part_from(MEGABYTE)
    assert isinstance(blocks, Blocks)
    assert blocks.data[0].obj is MEGABYTE
    assert blocks.bytes == 1 << 20


@given(st.binary(max_size=60) | st.integers(0, 60).map(lambda cut: MEGABYTE[:cut]))
def test_arbitrary_bytes_never_give_what_protobuf_would_refuse(message: bytes) -> None:
    with suppress(DataLoss):
        part = part_from(message)
        try:
            expected = pb.ReceiveRequest.FromString(message).WhichOneof("part")
        except DecodeError:
            pytest.fail(f"read {part} from what protobuf refuses")
        assert (part is None) == (expected is None)


@pytest.mark.parametrize("message", [MEGABYTE[:-1], b"\x0a\x05abc", b"\x22\x02\x0a\x01\xff", b"\x22\x03\x0a\x01\xff"])
def test_a_malformed_message_is_data_loss(message: bytes) -> None:
    with pytest.raises(DataLoss) as bad:
        part_from(message)
    assert bad.value.reason == "BAD_STREAM"
