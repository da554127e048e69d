"""What is expected, and how surely."""

import pytest

from policy.forecast import NOTHING, coming, returns, window
from policy.history import LONGEST_S, History


def every(gap_s: float, times: int) -> History:
    """A model that is asked at equal pauses."""
    history = History.begun(0.0)
    for n in range(1, times):
        history.asked(n * gap_s)
    return history


def test_a_pause_like_all_before_is_expected_to_end_when_those_did() -> None:
    history = every(600.0, 50)
    assert returns(history, 10.0, 400.0).mean < 0.03
    assert returns(history, 10.0, 800.0).mean > 0.95
    assert returns(history, 1200.0, 2400.0).surely == 0.0  # it has not come: such a pause is like none before


def test_of_a_model_that_nobody_knows_the_longer_pause_is_the_more_hopeless() -> None:
    unknown = History.begun(0.0)
    chances = [returns(unknown, pause_s, pause_s + 60.0).mean for pause_s in (1.0, 10.0, 100.0, 1000.0)]
    assert chances == sorted(chances, reverse=True)
    assert returns(None, 10.0, 70.0) == NOTHING


def test_the_more_pauses_were_seen_the_smaller_is_the_spread() -> None:
    spreads = [returns(every(600.0, times), 10.0, 800.0).spread for times in (5, 20, 200)]
    assert spreads == sorted(spreads, reverse=True)
    assert returns(every(600.0, 5), 10.0, 800.0).surely < returns(every(600.0, 200), 10.0, 800.0).surely


def test_a_window_opens_before_the_first_expected_moment_and_closes_after_the_last() -> None:
    found = window(every(600.0, 50))
    assert found
    assert 400.0 < found.opens_s <= 600.0 < found.closes_s < 900.0


def test_few_pauses_or_a_single_burst_open_no_window() -> None:
    assert window(every(600.0, 4)) is None
    assert window(every(0.1, 500)) is None


def test_a_window_of_pauses_without_end_closes_where_they_count_as_no_return() -> None:
    history = every(600.0, 50)
    history.asked(history.last_s + 2 * LONGEST_S)
    found = window(history)
    assert found
    assert found.opens_s < 600.0
    assert found.closes_s == pytest.approx(LONGEST_S)


def test_a_burst_is_forecast_above_what_always_comes_and_fades() -> None:
    history = every(60.0, 100)
    quiet = coming(history, 5950.0, 10.0)
    for n in range(40):
        history.asked(6000.0 + 0.5 * n)
    loud = coming(history, 6020.0, 10.0)
    assert 10.0 / 60.0 < quiet.mean < 0.5
    assert 5.0 < loud.mean < 25.0
    assert coming(history, 6320.0, 10.0).mean < 1.0
    assert quiet.surely == 0.0  # a request a minute is no reason to count on one within ten seconds
    assert loud.surely > 5.0
