"""Page-locking beside copies: ahead of them, no longer than needed, and nothing left of it."""

import queue
import threading

import pytest

from mesh.checkpoint.layout import Manifest, Part, Unit, UnitKind
from mesh.mapping import Mapping
from services.worker.loading.locking import AHEAD, LOCK_BYTES, PageLocks
from services.worker.loading.piece import Piece, nothing

RANGES = AHEAD + 3
SIZE = RANGES * LOCK_BYTES
GAP = 4096  # before the second unit, which begins in the range where the first ends
FIRST = LOCK_BYTES + (1 << 20)


class Card:
    """What is locked now; `told` are the beginnings in the order in which they were locked and unlocked."""

    def __init__(self, refused_at: int = SIZE) -> None:
        self.locked: dict[int, int] = {}
        self.told: queue.Queue[tuple[str, int]] = queue.Queue()
        self.go_on = threading.Event()
        self.go_on.set()
        self._refused_at = refused_at

    def lock(self, home: Mapping, start: int, size: int) -> None:
        assert self.go_on.wait(30)
        if start >= self._refused_at:
            raise PermissionError("no more of this")
        self.locked[start] = size
        self.told.put(("locked", start))

    def unlock(self, home: Mapping, start: int) -> None:
        del self.locked[start]
        self.told.put(("unlocked", start))


def manifest() -> Manifest:
    ends = [(0, FIRST), (FIRST + GAP, SIZE - FIRST - GAP)]
    units = tuple(Unit(str(at), UnitKind.EMBEDDING, 0, at, count, "0" * 64) for at, count in ends)
    part = Part("part-000.bin", 0, SIZE)
    return Manifest("0" * 64, "", "", "", "", "", "uint8", 1, (part,), units, (), (), (), None)


@pytest.fixture
def home() -> Mapping:
    return Mapping(SIZE, writable=False)


def whole(home: Mapping, index: int) -> Piece:
    unit = manifest().units[index]
    return Piece(index, 0, home.view[unit.offset : unit.offset + unit.bytes], home, unit.offset, nothing)


def test_the_ranges_behind_the_one_that_is_copied_are_locked_without_being_asked_for(home: Mapping) -> None:
    card = Card()
    locks = PageLocks(manifest(), card.lock, card.unlock)
    assert locks.ready(home, LOCK_BYTES + 5)
    told = [card.told.get(timeout=30) for _ in range(1 + AHEAD)]
    assert told == [("locked", LOCK_BYTES * number) for number in range(1, 2 + AHEAD)]
    assert card.told.empty()
    locks.close()
    assert not card.locked


def test_a_range_is_let_go_of_once_every_unit_in_it_is_copied(home: Mapping) -> None:
    card = Card()
    locks = PageLocks(manifest(), card.lock, card.unlock)
    assert all(locks.ready(home, start) for start in range(0, SIZE, LOCK_BYTES))
    assert card.locked == dict.fromkeys(range(0, SIZE, LOCK_BYTES), LOCK_BYTES)
    first, second = whole(home, 0), whole(home, 1)
    locks.copied(first, 0, LOCK_BYTES - 1)
    locks.copied(first, LOCK_BYTES, 1 << 20)  # the second unit is still to come from there
    locks.copied(first, LOCK_BYTES - 1, 1)
    told = [card.told.get(timeout=30) for _ in range(RANGES + 1)]
    assert told[-1] == ("unlocked", 0)
    locks.copied(second, FIRST + GAP, 2 * LOCK_BYTES - FIRST - GAP)
    assert card.told.get(timeout=30) == ("unlocked", LOCK_BYTES)
    locks.close()
    assert not card.locked


def test_memory_that_is_filled_again_and_again_stays_locked_to_the_end(home: Mapping) -> None:
    card = Card()
    locks = PageLocks(manifest(), card.lock, card.unlock)
    assert locks.ready(home, 0)
    slot = Piece(0, 0, home.view[:FIRST], home, 0, lambda: None)
    for _ in range(2):
        locks.copied(slot, 0, LOCK_BYTES)
    assert locks.ready(home, 0)
    locks.close()
    told = [card.told.get_nowait() for _ in range(card.told.qsize())]
    last_lock = max(place for place, (what, _) in enumerate(told) if what == "locked")
    assert all(what == "locked" for what, _ in told[: last_lock + 1])
    assert not card.locked


def test_where_locking_is_refused_what_was_locked_before_serves_and_nothing_more_is_tried(home: Mapping) -> None:
    card = Card(refused_at=2 * LOCK_BYTES)
    locks = PageLocks(manifest(), card.lock, card.unlock)
    assert [locks.ready(home, number * LOCK_BYTES) for number in range(RANGES)] == [True, True] + [False] * AHEAD + [
        False
    ]
    assert locks.ready(home, 0)
    locks.close()
    assert not card.locked


def test_ending_early_tries_no_further_range_and_leaves_none(home: Mapping) -> None:
    card = Card()
    locks = PageLocks(manifest(), card.lock, card.unlock)
    assert locks.ready(home, 0)
    card.go_on.clear()
    locks.ready(home, 0)
    closing = threading.Thread(target=locks.close)
    closing.start()
    card.go_on.set()
    closing.join(30)
    assert not closing.is_alive()
    assert not card.locked
