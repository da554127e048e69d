"""The knapsack, against every set there is."""

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from policy.victims import Victim, cheapest
from tests.policy.scene import at

VICTIMS = some.lists(
    some.builds(
        Victim, some.just(at("w1")), some.integers(1, 9), some.sampled_from([0.0, 1.0, 2.5]), some.integers(0, 5)
    ),
    max_size=7,
)


@given(VICTIMS, some.integers(1, 30))
def test_no_set_that_frees_enough_is_better(victims: list[Victim], wanted_bytes: int) -> None:
    sets = chain.from_iterable(combinations(victims, count) for count in range(1, len(victims) + 1))
    enough = [one for one in sets if sum(victim.bytes for victim in one) >= wanted_bytes]
    scores = [max(v.delay_s for v in one) + sum(v.cost_s for v in one) for one in enough]
    choice = cheapest(victims, wanted_bytes)
    if not scores:
        assert choice is None
        return
    assert choice is not None
    assert choice.bytes >= wanted_bytes
    assert choice.delay_s + choice.cost_s == pytest.approx(min(scores))


def test_two_small_ones_go_rather_than_a_dear_one() -> None:
    dear, small, other = (
        Victim(at("w1", "dear"), 10, 0.0, 9.0),
        Victim(at("w1", "small"), 5, 1.0, 1.0),
        Victim(at("w1", "other"), 5, 1.0, 1.0),
    )
    choice = cheapest([dear, small, other], 10)
    assert choice is not None
    assert {victim.source.model for victim in choice.victims} == {"small", "other"}
