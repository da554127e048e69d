from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from mesh.facts import ReplicaState
from sim.baselines.knapsack import cheapest
from sim.policy import Resident, spot

items = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), max_size=7)


@given(items, st.integers(1, 30))
def test_the_chosen_make_enough_room_and_none_that_do_cost_less(sizes: list[tuple[int, int]], missing: int) -> None:
    costs = [
        (Resident(spot("w", str(i)), ReplicaState.READY, size, 1, (), 0.0, None), float(cost))
        for i, (size, cost) in enumerate(sizes)
    ]
    subsets = [some for count in range(len(costs) + 1) for some in combinations(costs, count)]
    enough = [sum(cost for _, cost in some) for some in subsets if sum(one.bytes for one, _ in some) >= missing]
    found = cheapest(costs, missing)
    assert (found is None) == (not enough)
    if found:
        assert found[0] == min(enough)
        assert sum(one.bytes for one in found[1]) >= missing
