"""Blocks that other threads than the engine's read and write, on each kind of device."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from services.worker.engine.beside import Bytes, HostBeside, Mark, beside, gather, scatter
from services.worker.engine.errors import ImportRefused, UnknownRequest
from services.worker.engine.landing import Landing
from services.worker.engine.pool import KVPool, KVSpec
from tests.services.worker.engine.test_pool import SPECS

NO_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_CARD])]
WAIT_S = 60.0


def filled(spec: KVSpec, device: str) -> KVPool:
    pool = KVPool(spec, 9, device)
    pool.buffer.copy_(torch.randint(0, 256, pool.buffer.shape, dtype=torch.uint8))
    return pool


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("blocks", [(2, 3, 4), (7, 2, 3), (5,)], ids=["run", "scattered", "one"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_blocks_are_written_elsewhere_as_they_were_read(spec: KVSpec, blocks: tuple[int, ...], device: str) -> None:
    ours, theirs = filled(spec, device), filled(spec, device)
    before, places = theirs.read_all(range(9)), (0, 8, 5)[: len(blocks)]
    source, target = beside(ours), beside(theirs)
    data = source.buffer(len(blocks))
    source.read(blocks, data, source.mark())
    target.write(places, data, target.mark())
    assert torch.equal(theirs.read_all(places), ours.read_all(blocks))
    others = [block for block in range(9) if block not in places]
    assert torch.equal(theirs.read_all(others), before[others])
    again = target.buffer(len(blocks))
    target.read(places, again, target.mark())
    assert np.array_equal(again, data)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_a_device_gathers_and_scatters_at_once_lies_as_the_host_has_it(spec: KVSpec) -> None:
    ours, theirs, blocks = filled(spec, "cpu"), filled(spec, "cpu"), (7, 2, 3)
    data = beside(ours).buffer(len(blocks))
    beside(ours).read(blocks, data, None)
    gathered = gather(ours.halves, torch.tensor(blocks))
    assert np.array_equal(gathered.numpy(), data)
    scatter(theirs.halves, torch.tensor((0, 8, 5)), gathered)
    assert torch.equal(theirs.read_all((0, 8, 5)), ours.read_all(blocks))


class Slow(HostBeside):
    """Whose writes begin when they are told to."""

    def __init__(self, pool: KVPool) -> None:
        super().__init__(pool)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def write(self, blocks: Sequence[int], data: Bytes, after: Mark) -> None:
        self.begun.set()
        assert self.go_on.wait(WAIT_S)
        super().write(blocks, data, after)


def test_what_is_being_written_is_taken_back_after_that_and_nothing_is_written_later() -> None:
    slow = Slow(filled(SPECS["eights"], "cpu"))
    landing = Landing(slow, 0)
    landing.grow([4, 5])
    data = np.full(2 * slow.block_bytes, 7, dtype=np.uint8)
    writer = threading.Thread(target=landing.fill, args=(0, 2, data))
    writer.start()
    assert slow.begun.wait(WAIT_S)
    taker = threading.Thread(target=landing.end)
    taker.start()
    taker.join(0.05)
    assert taker.is_alive()
    slow.go_on.set()
    for thread in (taker, writer):
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert landing.filled == {0, 1}
    with pytest.raises(UnknownRequest, match="not its own any more"):
        landing.fill(0, 2, data)


def test_only_blocks_of_its_own_are_filled() -> None:
    side = beside(filled(SPECS["odd"], "cpu"))
    landing, data = Landing(side, 1), side.buffer(2)
    landing.grow([3, 4, 6])
    for first, end in ((0, 2), (2, 4), (2, 2), (-1, 1)):
        with pytest.raises(ImportRefused, match="blocks 1 to 3 are to be filled"):
            landing.fill(first, end, data)
    landing.fill(1, 3, data)
    assert landing.filled == {1, 2}
