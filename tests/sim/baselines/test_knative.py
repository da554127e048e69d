import pytest

from sim.baselines.knative import Concurrency, Knative
from sim.run import simulate
from tests.sim.paper import ask, cluster


def test_concurrency_is_averaged_over_the_time_that_it_lasted() -> None:
    seen = Concurrency(100.0)
    seen.note(100.0, 4)
    seen.note(103.0, 0)
    assert seen.mean(106.0, 6.0) == pytest.approx(2.0)
    assert seen.mean(106.0, 60.0) == pytest.approx(0.2)
    assert seen.mean(163.0, 60.0) == 0.0


@pytest.mark.parametrize(("gap_s", "loads"), [(85.0, 1), (95.0, 2)])
def test_a_replica_stays_through_a_stable_window_and_the_grace(gap_s: float, loads: int) -> None:
    run = simulate(cluster("a"), [ask(0.0), ask(11.7 + gap_s)], Knative())
    assert len(run.loads) == loads


def test_a_burst_panics_and_gets_more_replicas_than_the_stable_window_would_give() -> None:
    spec = cluster("a", workers=4, disk_bytes_per_s=100.0)
    run = simulate(spec, [ask(0.0, answer=60) for _ in range(12)], Knative())
    assert len({one.worker_id for one in run.loads}) == 4
    assert max(one.began_s for one in run.loads) < 10.0


def test_a_replica_that_finds_no_memory_is_pending_until_others_have_gone_to_zero() -> None:
    run = simulate(cluster("a", "b"), [ask(0.0, "a"), ask(20.0, "b")], Knative())
    idle_since_s = run.outcomes[0].finished_s or 0.0
    assert run.loads[1].began_s == pytest.approx(idle_since_s + 90.0, abs=2.5)
