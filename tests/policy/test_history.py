"""What is remembered of requests."""

import pytest

from policy.history import BINS, EDGES_S, HALF_LIFE_S, LONGEST_S, PRIOR, History, bin_of


def asked(first: float, *moments: float) -> History:
    """One model, asked at these."""
    history = History.begun(first)
    for moment in moments:
        history.asked(moment)
    return history


def test_bins_are_of_equal_ratio_from_a_second_to_four_hours() -> None:
    assert len(EDGES_S) == BINS
    assert EDGES_S[:2] == (0.0, 1.0)
    assert EDGES_S[-1] == pytest.approx(LONGEST_S)
    assert [bin_of(0.0), bin_of(0.99), bin_of(1.0), bin_of(1e9)] == [0, 0, 1, BINS - 1]
    assert EDGES_S[20] / EDGES_S[19] == pytest.approx(EDGES_S[3] / EDGES_S[2])


def test_a_pause_falls_into_its_bin_and_counts_as_longer_than_all_shorter_ones() -> None:
    history = asked(0.0, 100.0, 200.0)
    assert history.weights[bin_of(100.0)] == pytest.approx(2.0, abs=0.01)
    prior_beyond = PRIOR * (BINS - 1) / BINS
    assert history.longer(1.0) == pytest.approx(2.0 + prior_beyond, abs=0.01)
    assert history.longer(1000.0) < 1.0
    assert history.longer(0.0) == pytest.approx(2.0 + PRIOR, abs=0.01)


def test_what_was_seen_a_half_life_ago_counts_half() -> None:
    history = asked(0.0, 100.0, 100.0 + HALF_LIFE_S)
    assert history.weights[bin_of(100.0)] == pytest.approx(0.5, abs=0.001)
    assert history.weights[BINS - 1] == 1.0


def test_the_weight_of_longer_pauses_never_grows_with_the_pause() -> None:
    history = asked(0.0, 3.0, 50.0, 51.0, 900.0)
    weights = [history.longer(0.7 * n) for n in range(3000)]
    assert weights == sorted(weights, reverse=True)


def test_rates_tell_a_burst_from_what_always_comes() -> None:
    history = asked(*(60.0 * n for n in range(100)), *(6000.0 + n for n in range(30)))
    assert history.burst.per_s(6030.0) == pytest.approx(1.0, rel=0.4)
    assert history.base.per_s(6030.0) < 0.05
    assert history.burst.per_s(6330.0) < 0.001
