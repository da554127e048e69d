"""What is known of demand outlives a leader."""

import pytest

from mesh.clock import HandClock
from policy.demand import Demand
from policy.forecast import returns
from services.scheduler.demand_notes import demand_topic


def asked(*moments: float) -> Demand:
    """A model that was asked then."""
    demand = Demand()
    for moment in moments:
        demand.arrived("m", moment)
    return demand


def test_a_next_leader_with_another_clock_expects_what_the_first_one_did() -> None:
    first, second = asked(*(600.0 * n for n in range(20))), Demand()
    written = demand_topic(first, HandClock(11_500.0), lambda: 1_000_000.0).news()
    demand_topic(second, HandClock(7.0), lambda: 1_000_100.0).recall(written)
    before, after = first.histories["m"], second.histories["m"]
    assert after.last_s == pytest.approx(7.0 - 200.0)  # 100 s before the first leader wrote, and 100 s since
    assert returns(after, 200.0, 900.0).mean == pytest.approx(returns(before, 200.0, 900.0).mean, abs=1e-3)
    second.advance(after.last_s + 590.0, roomier=False)
    assert second.due == {"m"}


def test_only_what_has_changed_is_written_and_a_forgotten_model_is_an_empty_text() -> None:
    demand = asked(0.0, 10.0)
    topic = demand_topic(demand, HandClock(20.0), lambda: 0.0)
    assert topic.changed()
    assert list(topic.news()) == ["m"]
    assert not topic.changed()
    demand.forget("m")
    assert topic.news() == {"m": ""}


def test_what_cannot_be_read_is_learnt_anew() -> None:
    demand = Demand()
    topic = demand_topic(demand, HandClock(0.0), lambda: 0.0)
    topic.recall({"m": "not json", "n": '{"last_unix_s": 1.0, "weights": [1.0]}'})
    assert not demand.histories
