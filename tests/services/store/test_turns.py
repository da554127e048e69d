"""Turns: fair by bytes, loads before prefetches, and every end heard of once."""

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from services.store.turns import Piece, Turns, Urgency

WAIT_S = 60.0


class Chunk:
    """Counts."""

    def __init__(self, reading: "Reading", count: int) -> None:
        self._reading, self.bytes = reading, count

    def run(self) -> None:
        """As the test says."""
        self._reading.run()


class Reading:
    """Work of equal pieces; `log` tells whose pieces were handed out, in order."""

    def __init__(self, name: str, pieces: int, size: int, log: list[str]) -> None:
        self.name, self.left, self.size, self.log = name, pieces, size, log
        self.stalled = False
        self.ended = threading.Event()
        self.ends = 0
        self.failure: BaseException | None = None
        self.running = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    @property
    def exhausted(self) -> bool:
        """Nothing left."""
        return not self.left

    def take(self) -> Piece | None:
        """One, unless stalled."""
        if self.stalled or not self.left:
            return None
        self.left -= 1
        self.log.append(self.name)
        return Chunk(self, self.size)

    def run(self) -> None:
        """Waits if the test wants that, fails if it wants that."""
        self.running.set()
        assert self.go_on.wait(WAIT_S)
        if self.failure:
            raise self.failure

    def end(self) -> None:
        """Counts."""
        self.ends += 1
        self.ended.set()


@pytest.fixture
def log() -> list[str]:
    """What was handed out."""
    return []


@pytest.fixture
def turns() -> Iterator[Turns]:
    """One reader, so that the order is the turns' alone."""
    with Turns(1) as turns:
        yield turns


def held_up(turns: Turns, log: list[str]) -> Reading:
    """A work that keeps the reader until the test lets it `go_on`, so that others can queue up."""
    first = Reading("first", 1, 1, log)
    first.go_on.clear()
    turns.add(first, Urgency(urgent=True), first.end)
    assert first.running.wait(WAIT_S)
    return first


def share(log: list[str], until: int) -> Counter[str]:
    """Whose the first turns were, the one that held the reader up aside."""
    return Counter([name for name in log if name != "first"][:until])


@pytest.mark.parametrize("count", [2, 4])
def test_loads_of_any_chunk_size_get_equal_bytes(turns: Turns, log: list[str], count: int) -> None:
    first = held_up(turns, log)
    sizes = {f"load {n}": 1 << n for n in range(count)}
    works = [Reading(name, 4096 // size, size, log) for name, size in sizes.items()]
    for work in works:
        turns.add(work, Urgency(urgent=True), work.end)
    first.go_on.set()
    assert all(work.ended.wait(WAIT_S) for work in works)
    for cut in range(len(log)):
        had = {name: share(log, cut)[name] * size for name, size in sizes.items()}
        assert max(had.values()) - min(had.values()) <= 2 * max(sizes.values())
        if max(had.values()) == 4096:
            break


def test_a_newcomer_is_owed_nothing_for_the_time_before(turns: Turns, log: list[str]) -> None:
    old = Reading("old", 100, 1, log)
    old.go_on.clear()
    turns.add(old, Urgency(urgent=True), old.end)
    assert old.running.wait(WAIT_S)
    new = Reading("new", 50, 1, log)
    new.stalled = True
    turns.add(new, Urgency(urgent=True), new.end)
    old.go_on.set()
    assert old.ended.wait(WAIT_S)
    again, new.stalled = Reading("again", 50, 1, log), False
    new.go_on.clear()
    turns.add(again, Urgency(urgent=True), again.end)
    turns.wake()
    new.go_on.set()
    assert new.ended.wait(WAIT_S)
    assert again.ended.wait(WAIT_S)
    both = Counter(name for name in log[100:140])
    assert abs(both["new"] - both["again"]) <= 4


def test_a_prefetch_gets_no_turn_while_a_load_has_work(turns: Turns, log: list[str]) -> None:
    first = held_up(turns, log)
    prefetch, load = Reading("prefetch", 5, 1, log), Reading("load", 5, 100, log)
    turns.add(prefetch, Urgency(urgent=False), prefetch.end)
    turns.add(load, Urgency(urgent=True), load.end)
    first.go_on.set()
    assert prefetch.ended.wait(WAIT_S)
    assert log == ["first", *["load"] * 5, *["prefetch"] * 5]


def test_a_prefetch_that_somebody_waits_for_takes_turns_as_a_load_and_does_not_catch_up(
    turns: Turns, log: list[str]
) -> None:
    first = held_up(turns, log)
    urgency = Urgency(urgent=False)
    prefetch, load = Reading("prefetch", 20, 1, log), Reading("load", 20, 1, log)
    turns.add(prefetch, urgency, prefetch.end)
    turns.add(load, Urgency(urgent=True), load.end)
    urgency.promote()
    first.go_on.set()
    assert prefetch.ended.wait(WAIT_S)
    assert load.ended.wait(WAIT_S)
    assert share(log, 20) == {"prefetch": 10, "load": 10}


def test_work_that_stalls_leaves_the_reader_to_others_and_comes_back_when_woken(turns: Turns, log: list[str]) -> None:
    stalled, other = Reading("stalled", 1, 1, log), Reading("other", 3, 1, log)
    stalled.stalled = True
    turns.add(stalled, Urgency(urgent=True), stalled.end)
    turns.add(other, Urgency(urgent=True), other.end)
    assert other.ended.wait(WAIT_S)
    assert not stalled.ended.is_set()
    stalled.stalled = False
    turns.wake()
    assert stalled.ended.wait(WAIT_S)


def test_stopped_work_ends_when_its_piece_does_and_hands_out_no_other(turns: Turns, log: list[str]) -> None:
    work = Reading("work", 9, 1, log)
    work.go_on.clear()
    ticket = turns.add(work, Urgency(urgent=True), work.end)
    assert work.running.wait(WAIT_S)
    turns.stop(ticket)
    assert not work.ended.is_set()
    work.go_on.set()
    assert work.ended.wait(WAIT_S)
    turns.stop(ticket)
    assert (log, work.ends, ticket.failure) == (["work"], 1, None)


def test_work_that_waits_behind_another_stops_at_once(turns: Turns, log: list[str]) -> None:
    first, waiting = held_up(turns, log), Reading("waiting", 1, 1, log)
    turns.stop(turns.add(waiting, Urgency(urgent=True), waiting.end))
    assert waiting.ended.is_set()
    first.go_on.set()


def test_work_that_cannot_say_what_is_next_ends_and_costs_no_reader(turns: Turns, log: list[str]) -> None:
    class Odd(Reading):
        def take(self) -> Piece | None:
            raise RuntimeError("a fault of ours")

    odd, good = Odd("odd", 1, 1, log), Reading("good", 3, 1, log)
    ticket = turns.add(odd, Urgency(urgent=True), odd.end)
    assert odd.ended.wait(WAIT_S)
    turns.add(good, Urgency(urgent=True), good.end)
    assert good.ended.wait(WAIT_S)
    assert isinstance(ticket.failure, RuntimeError)
    assert odd.ends == 1


def test_a_failure_ends_the_work_and_nobody_else(turns: Turns, log: list[str]) -> None:
    bad, good = Reading("bad", 9, 1, log), Reading("good", 3, 1, log)
    bad.failure = OSError("no disk")
    ticket = turns.add(bad, Urgency(urgent=True), bad.end)
    assert bad.ended.wait(WAIT_S)
    turns.add(good, Urgency(urgent=True), good.end)
    assert good.ended.wait(WAIT_S)
    assert ticket.failure is bad.failure
    assert log == ["bad", *["good"] * 3]
    assert bad.ends == 1
