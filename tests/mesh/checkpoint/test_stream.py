"""The ring: ranges are read ahead, no more of them than it holds, and come out in order."""

import threading

import pytest
import torch

from mesh.checkpoint.errors import OriginUnreachable
from mesh.checkpoint.expression import Leaf
from mesh.checkpoint.pace import Pace
from mesh.checkpoint.stream import Reader

from .memory_origin import MemoryOrigin

PACE = Pace(ring_bytes=400, chunk_bytes=100, readers=4)
PATIENCE_S = 60.0


def leaves(count: int, size: int = 100) -> list[Leaf]:
    """Ranges of a file, one after another."""
    return [Leaf(torch.uint8, (size,), "file", index * size) for index in range(count)]


def file_of(count: int) -> dict[str, bytes]:
    return {"file": bytes(index % 251 for index in range(count))}


def test_ranges_are_read_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=PATIENCE_S)
    origin = MemoryOrigin(file_of(800), lambda *_: [] if together.wait() is None else None)
    with Reader(origin, PACE) as reader:
        data = b"".join(tensor.numpy().tobytes() for tensor in reader.tensors([leaves(8)]))
    assert data == file_of(800)["file"]


def test_no_more_is_read_ahead_than_the_ring_holds() -> None:
    origin = MemoryOrigin(file_of(10_000))
    used = 0
    with Reader(origin, PACE) as reader:
        for tensor in reader.tensors([leaves(100)]):
            assert origin.bytes_read <= used + PACE.ring_bytes + PACE.chunk_bytes
            used += tensor.numel()
    assert origin.bytes_read == used == 10_000


def test_what_is_larger_than_the_ring_has_it_to_itself_and_is_read_in_chunks() -> None:
    origin = MemoryOrigin(file_of(3000))
    large = Leaf(torch.uint8, (1000,), "file", 1000)
    small = leaves(30)
    with Reader(origin, PACE) as reader:
        found = [tensor.clone() for tensor in reader.tensors([[*small[:10], large, *small[20:]]])]
    assert torch.cat(found).numpy().tobytes() == file_of(3000)["file"]
    assert max(count for _, _, count in origin.reads) == PACE.chunk_bytes


def test_a_failing_read_is_told_when_its_turn_comes() -> None:
    def fail(_name: str, offset: int, _count: int) -> None:
        if offset == 300:
            raise OriginUnreachable("the line is dead")

    with Reader(MemoryOrigin(file_of(800), fail), PACE) as reader:
        arriving = reader.tensors([leaves(8)])
        assert [next(arriving).numel() for _ in range(3)] == [100, 100, 100]
        with pytest.raises(OriginUnreachable, match="the line is dead"):
            next(arriving)


def test_leaving_early_reads_no_further() -> None:
    origin = MemoryOrigin(file_of(10_000))
    with Reader(origin, PACE) as reader:
        next(reader.tensors([leaves(100)]))
    assert origin.bytes_read <= PACE.ring_bytes + PACE.chunk_bytes
