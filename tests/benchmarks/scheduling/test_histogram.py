"""Percentiles off a page of metrics."""

import math

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from benchmarks.scheduling.histogram import Buckets
from benchmarks.series import BenchmarkBroken

NAME = "took_seconds"


class Page:
    """Of a process with one histogram."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._histogram = Histogram(NAME, "What it took.", buckets=[1.0, 2.0, 4.0], registry=self._registry)

    def shows(self, *observed: float) -> Buckets:
        """Looks at it after these, too."""
        for value in observed:
            self._histogram.observe(value)
        return Buckets.on(generate_latest(self._registry).decode(), NAME)


def test_a_percentile_lies_on_a_straight_line_through_its_bucket() -> None:
    found = Page().shows(0.5, 0.5, 1.5, 1.5, 1.5, 1.5, 3.0, 3.0, 3.0, 3.0)
    assert found.count == 10
    assert found.percentile(0.2) == 1.0
    assert found.percentile(0.4) == 1.5
    assert found.percentile(0.9) == pytest.approx(3.5)
    assert found.percentile(1.0) == 4.0


def test_what_is_above_the_last_bound_is_of_no_known_size() -> None:
    found = Page().shows(0.5, 5.0)
    assert found.percentile(0.5) == 1.0
    assert found.percentile(0.51) == math.inf


def test_what_came_before_a_first_look_does_not_count() -> None:
    page = Page()
    before = page.shows(3.0, 3.0, 3.0)
    since = page.shows(0.5, 0.5).since(before)
    assert (since.count, since.percentile(1.0)) == (2, 1.0)
    with pytest.raises(BenchmarkBroken, match="nothing"):
        page.shows().since(page.shows()).percentile(0.5)


def test_a_page_without_the_histogram_is_no_page_of_ours() -> None:
    with pytest.raises(BenchmarkBroken, match="other_seconds"):
        Buckets.on(generate_latest(CollectorRegistry()).decode(), "other_seconds")
