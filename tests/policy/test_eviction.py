"""Eviction: LRU by bytes, never a pinned checkpoint, all or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from policy.eviction import Eviction, Held, Shed, make_room

HELD = st.lists(
    st.builds(
        Held,
        digest=st.uuids().map(str),
        bytes=st.integers(0, 100),
        used_s=st.floats(0, 100),
        pinned=st.booleans(),
    ),
    max_size=12,
)


def test_nothing_leaves_while_there_is_room() -> None:
    assert make_room([Held("a", 10, 1.0, False)], free_bytes=5, wanted_bytes=5) == Eviction(())


def test_the_least_recently_used_leave_first_and_the_last_of_them_keeps_what_is_not_needed() -> None:
    held = [Held("new", 10, 3.0, False), Held("old", 10, 1.0, False), Held("middle", 10, 2.0, False)]
    assert make_room(held, free_bytes=0, wanted_bytes=14) == Eviction((Shed("old", 10), Shed("middle", 4)))


def test_a_pinned_checkpoint_stays_though_it_is_the_oldest() -> None:
    held = [Held("pinned", 10, 1.0, True), Held("free", 10, 2.0, False)]
    assert make_room(held, free_bytes=0, wanted_bytes=10) == Eviction((Shed("free", 10),))


def test_it_says_how_much_is_missing_and_drops_nothing_in_vain() -> None:
    held = [Held("pinned", 10, 1.0, True), Held("free", 4, 2.0, False)]
    assert make_room(held, free_bytes=1, wanted_bytes=10) == Eviction((), missing_bytes=5)


@given(HELD, st.integers(0, 200), st.integers(0, 600))
def test_whatever_is_held_the_choice_is_exact_in_order_and_unpinned(held: list[Held], free: int, wanted: int) -> None:
    by_digest = {h.digest: h for h in held}
    eviction = make_room(held, free, wanted)
    reachable = free + sum(h.bytes for h in held if not h.pinned)
    assert eviction.missing_bytes == max(0, wanted - reachable)
    leaving = [by_digest[shed.digest] for shed in eviction.shed]
    assert not any(h.pinned for h in leaving)
    assert all(0 < shed.bytes <= by_digest[shed.digest].bytes for shed in eviction.shed)
    if not eviction.missing_bytes:
        assert sum(shed.bytes for shed in eviction.shed) == max(0, wanted - free)
        assert all(shed.bytes == by_digest[shed.digest].bytes for shed in eviction.shed[:-1])
        newest = max((h.used_s for h in leaving), default=0.0)
        stay = [h for h in held if not h.pinned and h.bytes and h not in leaving]
        assert all(h.used_s >= newest for h in stay)
