"""Eviction: LRU, never a pinned checkpoint, all or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from policy.eviction import Eviction, Held, make_room

HELD = st.lists(
    st.builds(
        Held,
        digest=st.uuids().map(str),
        bytes=st.integers(1, 100),
        used_s=st.floats(0, 100),
        pinned=st.booleans(),
    ),
    max_size=12,
)


def test_nothing_leaves_while_there_is_room() -> None:
    assert make_room([Held("a", 10, 1.0, False)], free_bytes=5, wanted_bytes=5) == Eviction(())


def test_the_least_recently_used_leave_first() -> None:
    held = [Held("new", 10, 3.0, False), Held("old", 10, 1.0, False), Held("middle", 10, 2.0, False)]
    assert make_room(held, free_bytes=0, wanted_bytes=20) == Eviction(("old", "middle"))


def test_a_pinned_checkpoint_stays_though_it_is_the_oldest() -> None:
    held = [Held("pinned", 10, 1.0, True), Held("free", 10, 2.0, False)]
    assert make_room(held, free_bytes=0, wanted_bytes=10) == Eviction(("free",))


def test_it_says_how_much_is_missing_and_drops_nothing_in_vain() -> None:
    held = [Held("pinned", 10, 1.0, True), Held("free", 4, 2.0, False)]
    assert make_room(held, free_bytes=1, wanted_bytes=10) == Eviction((), missing_bytes=5)


def test_a_small_one_is_spared_when_a_larger_one_makes_room_alone() -> None:
    held = [Held("small", 2, 1.0, False), Held("large", 50, 2.0, False)]
    assert make_room(held, free_bytes=0, wanted_bytes=40) == Eviction(("large",))


@given(HELD, st.integers(0, 200), st.integers(0, 600))
def test_whatever_is_held_the_choice_is_enough_minimal_and_unpinned(held: list[Held], free: int, wanted: int) -> None:
    by_digest = {h.digest: h for h in held}
    eviction = make_room(held, free, wanted)
    reachable = free + sum(h.bytes for h in held if not h.pinned)
    assert eviction.missing_bytes == max(0, wanted - reachable)
    leaving = [by_digest[digest] for digest in eviction.digests]
    assert not any(h.pinned for h in leaving)
    if not eviction.missing_bytes:
        freed = free + sum(h.bytes for h in leaving)
        assert freed >= wanted
        assert all(freed - h.bytes < wanted for h in leaving)
