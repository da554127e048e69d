"""Blocks read from one pool and written into another, whatever their sizes."""

import pytest
import torch

from services.worker.engine.pool import KVPool, KVSpec, LayerKV

SPECS = {
    "eights": KVSpec((LayerKV(2, 16, 16), LayerKV(1, 8, 24)), torch.float32),
    "odd": KVSpec((LayerKV(1, 3, 5), LayerKV(3, 1, 2)), torch.float8_e4m3fn, block_tokens=1),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_is_read_of_blocks_in_any_order_is_written_elsewhere_in_any_order(spec: KVSpec) -> None:
    ours, theirs = KVPool(spec, 9), KVPool(spec, 9)
    ours.buffer.copy_(torch.randint(0, 256, ours.buffer.shape, dtype=torch.uint8))
    for layer, (mine, other) in enumerate(zip(ours.layers, theirs.layers, strict=True)):
        data = ours.read(layer, [7, 2, 3])
        assert data.shape == (3, spec.layer_block_bytes(layer))
        theirs.write(layer, [0, 8, 5], data)
        for here, there in ((7, 0), (2, 8), (3, 5)):
            for left, right in ((mine.k, other.k), (mine.v, other.v)):
                size = spec.block_tokens
                block = left[here * size : (here + 1) * size].view(torch.uint8)
                assert torch.equal(block, right[there * size : (there + 1) * size].view(torch.uint8))
    assert torch.equal(theirs.read_all([8]), ours.read_all([2]))
    assert int(theirs.buffer.count_nonzero()) <= 3 * spec.block_bytes
    ours.write_all([1], theirs.read_all([5]))
    assert torch.equal(ours.read_all([1]), ours.read_all([3]))
