from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.knobs import Knobs
from sim.baselines.best_free import BestFree
from sim.baselines.serverlessllm import ServerlessLlm
from sim.bounds.first_loads import first_loads
from sim.judgement import Judgement
from sim.outcome import Run
from sim.policy import Policy
from sim.report import figures
from sim.request import Request
from sim.run import simulate
from tests.sim.paper import ask, cluster

POLICIES: tuple[Callable[[], Policy], ...] = (BestFree, ServerlessLlm, lambda: Judgement(Knobs(hold_s=500.0)))


def latencies_s(run: Run) -> list[float]:
    return sorted(one.latency_s or 0.0 for one in run.outcomes)


def test_the_first_of_a_model_pays_its_load_and_those_behind_it_what_is_left() -> None:
    requests = [ask(0.0), ask(4.0), ask(10.5), ask(11.0), ask(20.0, "b"), ask(900.0)]
    from_disk_s, prefill_s = 10.5, 1.0
    run = first_loads(cluster("a", "b"), requests)
    assert [one.latency_s for one in run.outcomes] == pytest.approx(
        [from_disk_s + prefill_s, 6.5 + prefill_s, prefill_s, prefill_s, from_disk_s + prefill_s, prefill_s]
    )
    assert [(one.model, one.began_s, one.ready_s) for one in run.loads] == [("a", 0.0, 10.5), ("b", 20.0, 30.5)]
    found = figures(run)
    assert (found.loading_gpu_s, found.busy_gpu_s, found.held_gpu_s) == pytest.approx((21.0, 6.0, 27.0))


def test_what_no_disk_has_comes_from_the_origin_and_nobody_waits_for_what_there_is_none_of() -> None:
    run = first_loads(cluster("a", copies=0), [ask(0.0), ask(1.0, "nobody")])
    assert latencies_s(run) == pytest.approx([0.0, 20.5 + 1.0])
    assert figures(run).refused == 1


def test_nobody_is_below_it_where_everybody_has_room_and_comes_alone() -> None:
    spec, requests = cluster("a", "b", workers=2), [ask(0.0), ask(30.0, "b"), ask(60.0), ask(90.0, "b")]
    assert latencies_s(simulate(spec, requests, BestFree())) == pytest.approx(latencies_s(first_loads(spec, requests)))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.0, 60.0), st.sampled_from("abc")), min_size=1, max_size=8),
    st.integers(1, 2),
    st.integers(1, 2),
)
def test_no_policy_is_below_it_at_any_quantile(asked: list[tuple[float, str]], nodes: int, workers: int) -> None:
    spec = cluster("a", "b", "c", nodes=nodes, workers=workers)
    requests: list[Request] = [ask(at_s, model) for at_s, model in sorted(asked)]
    least_s = latencies_s(first_loads(spec, requests))
    for policy in POLICIES:
        found_s = latencies_s(simulate(spec, requests, policy()))
        assert all(found >= least - 1e-6 for found, least in zip(found_s, least_s, strict=True))
