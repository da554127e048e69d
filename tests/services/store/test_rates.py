"""What is learnt of sources."""

import pytest

from mesh.clock import HandClock
from services.store.rates import DISTRUST_S, LAST_BACKOFF_S, Rates, blended, worth_asking

MB = 1 << 20


def rates() -> tuple[Rates, HandClock]:
    """Of one source, "p", and a clock to turn."""
    clock = HandClock()
    known = Rates(clock)
    known.meet("p", 1e9)
    return known, clock


def test_a_guess_gives_way_to_what_was_measured() -> None:
    known, _ = rates()
    for _ in range(40):
        known.delivered("p", 64 * MB, 64 * MB / 2e8)
    assert known.bytes_per_s("p") == pytest.approx(2e8, rel=0.01)
    known.meet("p", 1e9)
    assert known.bytes_per_s("p") == pytest.approx(2e8, rel=0.01)


def test_small_readings_say_little_of_the_rate() -> None:
    assert blended(1e9, 4096, 0.001) == pytest.approx(1e9, rel=0.001)
    assert blended(1e9, 1 << 30, 10.0) < 0.2e9


def test_each_failure_keeps_a_source_away_for_longer_until_it_delivers() -> None:
    known, clock = rates()
    known.failed("p")
    assert not known.welcome("p")
    clock.turn(1.0)
    assert known.welcome("p")
    known.failed("p")
    clock.turn(1.0)
    assert not known.welcome("p")
    clock.turn(1.0)
    assert known.welcome("p")
    for _ in range(20):
        known.failed("p")
    clock.turn(LAST_BACKOFF_S)
    assert known.welcome("p")
    known.delivered("p", MB, 0.01)
    known.failed("p")
    clock.turn(1.0)
    assert known.welcome("p")


def test_a_liar_is_not_forgiven_for_what_it_got_right() -> None:
    known, clock = rates()
    known.distrust("p")
    known.delivered("p", MB, 0.01)
    assert not known.welcome("p")
    clock.turn(DISTRUST_S)
    assert known.welcome("p")


@pytest.mark.parametrize(
    ("count", "own", "rest", "best_other", "worth"),
    [
        (10, 1.0, 10, 0.0, True),  # nobody else
        (10, 2.0, 10, 2.0, True),  # equals share
        (10, 1.0, 10, 2.0, False),  # the other would be done first
        (10, 1.0, 100, 2.0, True),  # the other has enough to do
        (10, 4.0, 10, 1.0, True),  # the fastest always
    ],
)
def test_a_slow_source_helps_only_while_there_is_enough_to_do(
    count: int, own: float, rest: int, best_other: float, worth: bool
) -> None:
    assert worth_asking(count, own, rest, best_other) is worth
