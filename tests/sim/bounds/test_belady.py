from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.baselines.best_free import BestFree
from sim.bounds import belady
from sim.bounds.belady import misses, places
from sim.bounds.physics import mean_s as physics_s
from sim.run import simulate
from tests.sim.paper import ask, cluster


def fewest(models: tuple[str, ...], room: int) -> int:
    """By trying every eviction."""

    @cache
    def cost(index: int, there: frozenset[str]) -> int:
        if index == len(models):
            return 0
        if models[index] in there:
            return cost(index + 1, there)
        if len(there) < room:
            return 1 + cost(index + 1, there | {models[index]})
        return 1 + min(cost(index + 1, there - {victim} | {models[index]}) for victim in there)

    return cost(0, frozenset())


@given(st.lists(st.sampled_from("abcde"), max_size=12).map(tuple), st.integers(1, 4))
def test_nothing_misses_less_often(models: tuple[str, ...], room: int) -> None:
    assert misses(models, room) == fewest(models, room)


def test_memory_is_counted_in_replicas() -> None:
    assert places(cluster("a", nodes=2, workers=3, memory_bytes=25)) == 2 * 3 * 2


def test_misses_after_the_first_cost_a_load_from_memory_and_nobody_is_below() -> None:
    spec, requests = cluster("a", "b"), [ask(100.0 * i, name) for i, name in enumerate("abab")]
    from_disk_s, from_memory_s, prefill_s = 10.5, 1.5, 1.0
    assert belady.mean_s(spec, requests) == pytest.approx((2 * from_disk_s + 2 * from_memory_s) / 4 + prefill_s)
    assert physics_s(spec, requests) == pytest.approx(2 * from_disk_s / 4 + prefill_s)
    run = simulate(spec, requests, BestFree())
    unload_s = 0.25
    assert sum(one.latency_s or 0.0 for one in run.outcomes) / 4 == pytest.approx(
        belady.mean_s(spec, requests) + 3 * unload_s / 4
    )
