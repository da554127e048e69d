"""Hashing in order what comes in any order."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from services.store.hashing import InOrder


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8), st.randoms(use_true_random=False), st.integers(0, 99))
def test_pieces_in_any_order_give_the_hash_of_the_whole_to_the_last(pieces: list[bytes], chance, start: int) -> None:  # type: ignore[no-untyped-def]
    padding = 7  # after the last piece: counted, not hashed
    bounds, at = [], start
    for piece in pieces:
        bounds.append((at, at + len(piece) + 1, piece))  # at least a byte each
        at += len(piece) + 1
    bounds[-1] = (bounds[-1][0], bounds[-1][1] + padding, bounds[-1][2])
    hashing = InOrder(start, at + padding)
    chance.shuffle(bounds)
    found = [hashing.add(begin, end, memoryview(piece)) for begin, end, piece in bounds]
    assert found[-1] == blake3(b"".join(pieces)).hexdigest()
    assert found[:-1] == [None] * (len(pieces) - 1)


@pytest.mark.parametrize("attempt", range(20))
def test_of_many_threads_exactly_one_gets_the_hash(attempt: int) -> None:
    data = bytes([attempt]) * (64 << 10)
    hashing = InOrder(0, 40 * len(data))
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(
                lambda i: hashing.add(i * len(data), (i + 1) * len(data), memoryview(data)), reversed(range(40))
            )
        )
    assert [hash_ for hash_ in found if hash_] == [blake3(data * 40).hexdigest()]


def test_pieces_that_were_never_hashed_are_let_go_of() -> None:
    memory = bytearray(100)
    hashing = InOrder(0, 100)
    hashing.add(50, 100, memoryview(memory)[50:])
    hashing.release()
    memory.clear()  # raises while anybody looks at it
