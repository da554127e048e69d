from itertools import pairwise

import pytest

from sim.baselines.released import Released
from sim.run import simulate
from tests.sim.paper import ask, cluster


def starts(run):  # type: ignore[no-untyped-def]
    return [one.start_s for one in run.outcomes]


def test_each_request_waits_a_second_and_a_model_gets_one_a_second_at_most() -> None:
    spec = cluster("a", workers=4, slots=16, disk_bytes_per_s=1e9, dram_bytes_per_s=1e9)
    run = simulate(spec, [ask(10.0), *[ask(20.0, answer=100) for _ in range(4)]], Released())
    found = starts(run)
    assert found[0] >= 11.0
    assert all(later - earlier >= 1.0 - 1e-9 for earlier, later in pairwise(found[1:]))


def test_an_instance_serves_one_at_a_time_and_has_its_device_to_itself() -> None:
    run = simulate(cluster("a", "b", memory_bytes=100), [ask(0.0), ask(0.0), ask(0.0, "b")], Released())
    spans = sorted((one.start_s, one.finished_s) for one in run.outcomes)
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))
    assert not any(one.lost for one in run.outcomes)


def test_an_instance_without_requests_is_ended_within_a_second() -> None:
    run = simulate(cluster("a"), [ask(0.0), ask(30.0)], Released())
    assert len(run.loads) == 2
    assert run.outcomes[1].first_s == pytest.approx(30.0 + 1.0 + 1.0 + 1.0, abs=1.1)  # a tick, the load, a look
