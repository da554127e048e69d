"""When a move is given up because blocks fill as fast as they leave."""

import itertools

import pytest

from services.worker.moving.departure import MOST_LAPS, Gain


def laps(first: int, factor: float) -> int:
    """How many leave until it is given up, each so many times as long as the one before."""
    gain, blocks = Gain(first), float(first)
    for number in itertools.count(1):
        blocks *= factor
        if not gain.goes_on(int(blocks)):
            return number
    raise AssertionError


def test_laps_that_stay_as_long_as_they_are_end_after_a_few() -> None:
    assert laps(6, 1.0) == MOST_LAPS + 1


@pytest.mark.parametrize("factor", [1.2, 1.5, 3.0])
def test_laps_that_grow_end_before_many_times_the_first_one_has_left(factor: float) -> None:
    number = laps(60, factor)
    left = sum(60 * factor**lap for lap in range(number))
    assert number < MOST_LAPS
    assert left <= (1 + MOST_LAPS) * 60


def test_laps_that_get_shorter_may_be_many() -> None:
    gain = Gain(500)
    assert all(gain.goes_on(blocks) for left in range(499, 1, -1) for blocks in (left, left))
