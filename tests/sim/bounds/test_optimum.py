import pytest

from sim.arrivals import Gaps, Law
from sim.bounds.optimum import optimum
from sim.bounds.physics import mean_s as physics_s
from sim.outcome import Run
from sim.policies import POLICIES
from sim.request import Request
from sim.run import simulate
from sim.workload import Workload, model_name
from tests.sim.paper import ask, cluster

FORESIGHTLESS = [name for name in POLICIES if not name.startswith(("serverlessllm", "shepherd", "whimbrel"))]


def mean_s(run: Run) -> float:
    return sum(one.latency_s or 0.0 for one in run.outcomes) / len(run.outcomes)


def tiny(seed: int) -> list[Request]:
    gaps = Gaps(Law.GAMMA, 2.0)
    return Workload(3, 0.2, 60.0, seed, gaps=gaps, lengths=("gsm8k-like",)).requests()[:7]


def test_it_waits_for_the_closest_worker_where_that_is_best() -> None:
    spec = cluster("a", "b", "c", nodes=2, origin_bytes_per_s=0.1)
    best = optimum(spec, [ask(0.0, "c", answer=30), ask(12.0, "a")])
    c_ends_s = 11.5 + 2.9
    assert [one.first_s for one in best.outcomes] == pytest.approx([11.5, c_ends_s + 0.25 + 10.5 + 1.0])


def test_it_leaves_the_closest_worker_to_whom_it_is_worth_more() -> None:
    """c lies on n0, as a does, and comes first; b's disk is n1's. From the origin, c takes as long as a does."""
    spec = cluster("a", "b", "c", nodes=2)
    best = optimum(spec, [ask(0.0, "c"), ask(0.0, "a")])
    assert sorted(one.latency_s or 0.0 for one in best.outcomes) == pytest.approx([11.5, 21.5])


@pytest.mark.parametrize("seed", range(1, 5))
def test_no_policy_without_moves_does_better(seed: int) -> None:
    requests = tiny(seed)
    spec = cluster(*[model_name(i) for i in range(3)], nodes=2, slots=4, dram_bytes=30)
    best = mean_s(optimum(spec, requests))
    assert best >= physics_s(spec, requests) - 1e-9
    for name in FORESIGHTLESS:
        assert mean_s(simulate(spec, requests, POLICIES[name](1))) >= best - 1e-9


def test_a_case_that_is_too_large_is_told() -> None:
    spec = cluster(*[model_name(i) for i in range(3)], nodes=2)
    with pytest.raises(ValueError, match="takes more than 3 runs"):
        optimum(spec, tiny(1), most_runs=3)


def test_what_cannot_be_answered_has_no_optimum() -> None:
    with pytest.raises(ValueError, match="cannot all be answered"):
        optimum(cluster("a", memory_bytes=5), [ask(0.0)])
