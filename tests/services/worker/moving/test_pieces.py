"""Messages cover every block of every layer once, and are about a MiB each."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from services.worker.moving.pieces import MESSAGE_BYTES, checksum, packed, pieces, unpacked

layers = st.lists(st.integers(1, 3 * MESSAGE_BYTES), min_size=1, max_size=12)


@given(layers, st.integers(0, 50), st.integers(0, 50))
def test_each_block_of_each_layer_is_in_one_piece(layer_bytes: list[int], first: int, end: int) -> None:
    cut = list(pieces(layer_bytes, first, end))
    places = [
        (layer, block) for piece in cut for layer in range(*piece.layers) for block in range(piece.first, piece.end)
    ]
    assert sorted(places) == [(layer, block) for layer in range(len(layer_bytes)) for block in range(first, end)]
    for piece in cut:
        size = sum(layer_bytes[slice(*piece.layers)]) * (piece.end - piece.first)
        alone = piece.end - piece.first == piece.layers[1] - piece.layers[0] == 1
        assert size <= MESSAGE_BYTES or alone


def test_small_blocks_go_together() -> None:
    assert len(list(pieces([1000] * 10, 0, 105))) == 2


def test_what_is_packed_is_unpacked() -> None:
    layer_bytes = [8, 24, 3]
    data = [torch.randint(0, 256, (5, width), dtype=torch.uint8) for width in layer_bytes]
    (piece,) = pieces(layer_bytes, 7, 12)
    sent = packed(piece, data)
    came = memoryview(b"".join(sent.data))
    assert checksum([came]) == sent.checksum
    message = type(sent)(sent.first_layer, sent.layers, sent.first_block, sent.blocks, (came,), sent.checksum)
    assert all(torch.equal(a, b) for a, b in zip(unpacked(message, layer_bytes), data, strict=True))
