import pytest

from sim.engine import Engine


def test_events_happen_in_order_of_time_then_rank_then_making() -> None:
    engine, seen = Engine(), list[str]()
    engine.at(2.0, lambda: seen.append("late"))
    engine.at(1.0, lambda: seen.append("decides"), rank=1)
    engine.at(1.0, lambda: seen.append("first"))
    engine.at(1.0, lambda: seen.append("second"))
    engine.run()
    assert seen == ["first", "second", "decides", "late"]
    assert engine.now_s == 2.0


def test_what_is_cancelled_does_not_happen_and_what_is_made_meanwhile_does() -> None:
    engine, seen = Engine(), list[float]()
    doomed = engine.at(3.0, lambda: seen.append(-1.0))
    engine.at(1.0, doomed.cancel)
    engine.at(1.0, lambda: engine.after(0.5, lambda: seen.append(engine.now_s)) and None)
    engine.run()
    assert seen == [1.5]


def test_the_past_cannot_be_changed_and_a_run_ends_where_it_is_told() -> None:
    engine, seen = Engine(), list[float]()
    for at_s in (1.0, 2.0, 3.0):
        engine.at(at_s, lambda: seen.append(engine.now_s))
    engine.run(until_s=2.0)
    assert seen == [1.0, 2.0]
    with pytest.raises(ValueError, match="past"):
        engine.at(1.0, engine.run)
