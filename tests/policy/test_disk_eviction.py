"""Which units leave the disk."""

from hypothesis import given
from hypothesis import strategies as st

from policy.disk_eviction import tail


def test_the_last_units_go_first_and_no_more_than_needed() -> None:
    assert tail({0, 1, 2, 3}, (10, 20, 30, 40), 50) == (3, 2)
    assert tail({0, 1, 3}, (10, 20, 30, 40), 40) == (3,)
    assert tail({0, 1}, (10, 20), 0) == ()
    assert tail({0, 1}, (10, 20), 1000) == (1, 0)


@given(st.lists(st.integers(1, 100), max_size=20), st.integers(-5, 1000), st.data())
def test_it_is_the_shortest_tail_that_is_enough(extents: list[int], wanted: int, data: st.DataObject) -> None:
    units = {unit for unit in range(len(extents)) if data.draw(st.booleans())}
    gone = tail(units, extents, wanted)
    freed = sum(extents[unit] for unit in gone)
    assert gone == tuple(sorted(units, reverse=True)[: len(gone)])
    assert freed >= min(wanted, sum(extents[unit] for unit in units))
    if gone:
        assert freed - extents[gone[-1]] < wanted
