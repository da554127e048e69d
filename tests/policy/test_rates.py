"""Rates: what is learnt from durations, of which parts, and how sure one can be."""

import math
import random

import pytest

from policy.rates import (
    BYTES_OF,
    FORGETTING,
    MOST,
    MOST_NOISE,
    PRIOR_VARIANCE,
    Learnt,
    Portion,
    Quantity,
    Rate,
    Rates,
    p90,
)

DISK, INIT = Rate(Quantity.DISK, "n1"), Rate(Quantity.INIT, "n1", "Llama")
GB = 1e9


def disk(size: float, node: str = "n1") -> Portion:
    """So many bytes, which are thought to come at 2 GB/s."""
    return Portion(Rate(Quantity.DISK, node), size, 1 / (2 * GB))


def init(node: str = "n1") -> Portion:
    """What is not bytes."""
    return Portion(Rate(Quantity.INIT, node, "Llama"), 1, 0.2)


def mean_s(rates: Rates, *portions: Portion) -> float:
    """Of all of them."""
    return sum(map(rates.seconds, portions))


def test_before_anything_was_seen_the_guess_holds() -> None:
    assert mean_s(Rates(), disk(4 * GB), init()) == pytest.approx(2.2)


def test_a_guess_that_is_ten_times_off_is_mended_by_three_loads() -> None:
    rates = Rates()
    for _ in range(3):
        rates.saw([disk(10 * GB)], 50.0)
    assert mean_s(rates, disk(10 * GB)) == pytest.approx(50.0, rel=0.1)


def test_the_fixed_part_and_the_bytes_are_told_apart_by_loads_of_several_sizes() -> None:
    rates = Rates()
    for size in [1, 20, 3, 40, 2, 10, 30, 1] * 5:
        rates.saw([disk(size * GB), init()], 1.5 + size / 0.5)
    assert mean_s(rates, disk(GB)) == pytest.approx(2.0, rel=0.1)
    assert mean_s(rates, init()) == pytest.approx(1.5, rel=0.1)


def test_a_part_of_no_amount_learns_nothing() -> None:
    rates = Rates()
    rates.saw([disk(0), init()], 1.0)
    assert DISK not in rates.learnt
    assert INIT in rates.learnt


@pytest.mark.parametrize("took_s", [0.0, -1.0])
def test_what_took_no_time_teaches_nothing(took_s: float) -> None:
    rates = Rates()
    rates.saw([init()], took_s)
    assert not rates.learnt


def test_nine_in_ten_are_within_the_promise_and_not_many_more() -> None:
    rates, draw = Rates(), random.Random(3)
    late = 0
    for n in range(2200):
        took_s = 2.0 * math.exp(draw.gauss(0, 0.3))
        if n >= 200:
            late += took_s > p90(rates.seconds(init()), rates.variance([init()]))
        rates.saw([init()], took_s)
    assert 0.07 < late / 2000 < 0.13
    assert rates.seconds(init()) == pytest.approx(2.0 * math.exp(0.3**2 / 2), rel=0.1)  # the mean, not the median


def test_one_outlier_moves_little_and_a_change_that_stays_is_followed() -> None:
    rates = Rates()
    for _ in range(50):
        rates.saw([init()], 1.0)
    rates.saw([init()], 100.0)
    assert rates.seconds(init()) < 1.1
    for _ in range(60):
        rates.saw([init()], 5.0)
    assert rates.seconds(init()) == pytest.approx(5.0, rel=0.25)


def test_a_node_that_nobody_has_loaded_on_is_thought_to_be_as_the_others_but_less_surely() -> None:
    rates = Rates()
    for _ in range(10):
        rates.saw([disk(10 * GB)], 50.0)
    assert mean_s(rates, disk(GB, "n2")) == pytest.approx(mean_s(rates, disk(GB)), rel=0.01)
    assert rates.variance([disk(GB)]) < rates.variance([disk(GB, "n2")]) < Rates().variance([disk(GB)])


def test_nodes_that_differ_are_told_apart() -> None:
    rates = Rates()
    for _ in range(10):
        rates.saw([disk(10 * GB, "n1")], 5.0)
        rates.saw([disk(10 * GB, "n2")], 50.0)
    assert mean_s(rates, disk(10 * GB, "n1")) == pytest.approx(5.0, rel=0.1)
    assert mean_s(rates, disk(10 * GB, "n2")) == pytest.approx(50.0, rel=0.1)


def test_what_is_known_is_forgotten_slowly_so_that_it_never_sets() -> None:
    rates = Rates()
    for _ in range(1000):
        rates.saw([init()], 1.0)
    learnt = rates.learnt[INIT]
    assert learnt.variance > (1 - FORGETTING) * learnt.noise / 2
    assert learnt.variance < PRIOR_VARIANCE


def test_what_is_learnt_is_noted_as_changed_for_the_node_and_the_cluster() -> None:
    rates = Rates({INIT: Learnt(1.0)})
    rates.saw([init()], 1.0)
    assert rates.changed == {INIT, INIT._replace(node="")}


def test_equal_histories_teach_the_same() -> None:
    first, second = Rates(), Rates()
    for rates in (first, second):
        for size in (1, 5, 2):
            rates.saw([disk(size * GB), init()], size * 0.7)
    assert first == second


def test_what_nobody_has_asked_for_longest_is_forgotten_when_there_is_too_much() -> None:
    rates = Rates({Rate(Quantity.HELD, "", str(n)): Learnt(1.0) for n in range(MOST)})
    rates.saw([Portion(Rate(Quantity.HELD, "", "0"), 1, 1.0)], 1.0)
    rates.saw([Portion(Rate(Quantity.HELD, "", "new"), 1, 1.0)], 1.0)
    assert len(rates.learnt) == MOST
    assert [rate.of for rate in rates.changed if rate not in rates.learnt] == ["1"]


@pytest.mark.parametrize("spread", [0.1, 1.0, 2.0, 3.0])
def test_durations_that_differ_wildly_are_learnt_without_the_noise_feeding_itself(spread: float) -> None:
    """Answers of one token and of thousands hold their places for times that have little in common."""
    rates, chance = Rates(), random.Random(1)
    for _ in range(2000):
        took_s = 2.0 * math.exp(chance.gauss(0, spread))
        rates.saw([init()], took_s)
    learnt = rates.learnt[INIT]
    assert 1.0 < learnt.mean_s < 2.0 * math.exp(spread * spread / 2) * 2
    assert learnt.noise <= max(MOST_NOISE, spread * spread)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_at_hand_of_a_node_is_what_was_learnt(seed: int) -> None:
    chance, rates = random.Random(seed), Rates()
    for _ in range(60):
        node, tier = chance.choice(("n1", "n2")), chance.choice(tuple(BYTES_OF))
        took = [Portion(Rate(BYTES_OF[tier], node), GB, 1.0), init(node)]
        if chance.random() < 0.2:
            rates.recall(Rate(BYTES_OF[tier], chance.choice(("", node))), Learnt(chance.random()))
        else:
            rates.saw(took[chance.randrange(2) :], chance.uniform(0.1, 9.0))
        for place in ("n1", "n2", "n3"):
            for each in BYTES_OF:
                assert rates.byte_s(each, place, 0.5) == rates.mean_s(Rate(BYTES_OF[each], place), 0.5)
            for shape in ("Llama", "Qwen"):
                assert rates.init_s(place, shape, 0.2) == rates.mean_s(Rate(Quantity.INIT, place, shape), 0.2)
