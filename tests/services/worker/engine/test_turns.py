"""Whose step is next, over any costs and weights: the engine's own turns, one by one, on a clock that steps turn."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.engine.engine import Engine
from services.worker.engine.request import TokenStep


@dataclass(slots=True)
class Clock:
    """Turned by hand."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(slots=True)
class Busy:
    """A replica that always has work, and whose steps cost what they are said to."""

    name: str
    clock: Clock
    cost_s: float
    spent_s: float = 0.0
    has_work: bool = True

    def step(self) -> list[TokenStep]:
        self.clock.now_s += self.cost_s
        self.spent_s += self.cost_s
        return []


LOADS = st.lists(st.tuples(st.floats(0.5, 4.0), st.floats(0.25, 4.0)), min_size=2, max_size=5)


def turn(loads: list[tuple[float, float]], turns: int) -> list[Busy]:
    clock = Clock()
    engine = Engine(lambda steps: None, clock=clock)
    replicas = [Busy(f"r{i}", clock, cost_s) for i, (cost_s, _) in enumerate(loads)]
    for one, (_, weight) in zip(replicas, loads, strict=True):
        engine.add_replica(one, weight)  # type: ignore[arg-type]  # what a turn does not ask for is left out
    for _ in range(turns):
        assert engine._turn()
    return replicas


@settings(max_examples=50)
@given(LOADS, st.integers(1, 300))
def test_nobody_is_ever_further_behind_than_one_step(loads: list[tuple[float, float]], turns: int) -> None:
    replicas = turn(loads, turns)
    virtual = [one.spent_s / weight for one, (_, weight) in zip(replicas, loads, strict=True)]
    assert max(virtual) - min(virtual) <= max(cost / weight for cost, weight in loads) + 1e-6


def test_models_whose_steps_cost_one_to_four_get_half_of_the_time_each() -> None:
    cheap, dear = turn([(1.0, 1.0), (4.0, 1.0)], 500)
    assert 0.45 < dear.spent_s / (dear.spent_s + cheap.spent_s) < 0.55
