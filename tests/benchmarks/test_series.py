"""How measured things are summed up and compared."""

import pytest

from benchmarks.series import BenchmarkBroken, Series


def test_a_series_is_summed_up_by_its_median_and_its_ends() -> None:
    series = Series.of([3.0, 1.0, 2.0, 10.0])
    assert (series.median, series.low, series.high) == (2.5, 1.0, 10.0)


def test_a_ratio_is_taken_round_by_round_and_not_of_the_medians() -> None:
    slow, fast = Series.of([10.0, 40.0, 90.0]), Series.of([1.0, 2.0, 9.0])
    assert slow.over(fast).values == (10.0, 20.0, 10.0)
    assert slow.over(fast).median == 10.0  # the medians' would be 20


def test_rounds_that_only_one_side_has_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Series.of([1.0, 2.0]).over(Series.of([1.0]))


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(BenchmarkBroken, match="at least one round"):
        Series.of([])


def test_a_series_reads_as_its_median_its_unit_and_its_spread() -> None:
    assert Series.of([0.4123, 0.39, 0.52]).text("s") == "0.412 s (0.39–0.52)"
    assert Series.of([1234.5]).text("requests/s") == "1234 requests/s (1234–1234)"
    assert Series.of([20.0]).text("") == "20 (20–20)"
