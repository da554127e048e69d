import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from mesh.facts import Tier
from policy.actions import RefusalReason
from policy.knobs import Knobs
from sim.failures import Failure, NodeCrash, Partition, SlowDisk, WorkerCrash
from sim.judgement import Judgement
from sim.outcome import Run
from sim.report import figures
from sim.request import Request
from sim.run import simulate
from sim.spec import ClusterSpec
from tests.sim.paper import ask, cluster

SHOW = """
from sim.policies import POLICIES
from sim.run import simulate
from sim.scenarios import SCENARIOS
scenario = SCENARIOS["6.7b-sharegpt-0.8-aggregate"]
print(simulate(scenario.cluster, scenario.workload(0).requests()[:150], POLICIES["whimbrel"](0)))
"""
KNOBS = Knobs(keep_alive_s=1000.0, hold_s=500.0)


def run(spec: ClusterSpec, *requests: Request, failures: tuple[Failure, ...] = ()) -> Run:
    return simulate(spec, requests, Judgement(KNOBS), failures)


def firsts(done: Run) -> list[float | None]:
    return [one.first_s for one in done.outcomes]


def test_a_process_can_send_a_run_to_another() -> None:
    done = run(cluster("a"), ask(0.0), ask(100.0))
    assert pickle.loads(pickle.dumps(done)) == done
    seen = figures(done, 0.0)
    assert pickle.loads(pickle.dumps(seen)) == seen


def test_a_run_is_the_same_in_every_process_in_whatever_order_that_has_its_sets() -> None:
    shown = [
        subprocess.run(
            [sys.executable, "-c", SHOW], env={**os.environ, "PYTHONHASHSEED": order}, check=True, capture_output=True
        ).stdout
        for order in ("0", "1", "2")
    ]
    assert shown[0].startswith(b"Run(policy='whimbrel'")
    assert shown[0] == shown[1] == shown[2]


def test_a_cold_start_takes_its_bytes_its_init_and_its_prefill_and_a_warm_one_the_prefill() -> None:
    done = run(cluster("a"), ask(0.0), ask(100.0))
    assert firsts(done) == pytest.approx([10.0 + 0.5 + 1.0, 101.0])
    assert [one.finished_s for one in done.outcomes] == pytest.approx([11.7, 101.2])
    assert [one.ready_s for one in done.loads] == pytest.approx([10.5])


def test_what_was_evicted_comes_again_from_memory() -> None:
    done = run(cluster("a", "b"), ask(0.0, "a"), ask(100.0, "b"), ask(200.0, "a"))
    unload_s, near_s, far_s = 0.25, 1.0, 10.0
    assert firsts(done) == pytest.approx([11.5, 100.0 + unload_s + far_s + 1.5, 200.0 + unload_s + near_s + 1.5])


def test_two_loads_of_one_node_come_one_after_the_other_and_those_of_two_nodes_do_not() -> None:
    knobs = replace(KNOBS, bytes_per_s={Tier.ORIGIN: 0.5, Tier.DISK: 1.0, Tier.DRAM: 10.0})  # a good guess
    together = simulate(cluster("a", "b", workers=2), [ask(0.0, "a"), ask(0.0, "b")], Judgement(knobs))
    apart = run(cluster("a", "b", nodes=2), ask(0.0, "a"), ask(0.0, "b"))
    assert firsts(together) == pytest.approx([11.5, 21.5], abs=0.05)
    assert firsts(apart) == pytest.approx([11.5, 11.5])


def test_what_no_disk_has_comes_from_the_origin_and_stays() -> None:
    done = run(cluster("a", copies=0), ask(0.0))
    assert firsts(done) == pytest.approx([20.0 + 1.5])


def test_requests_beyond_the_slots_wait_for_one() -> None:
    done = run(cluster("a"), ask(0.0), ask(0.0), ask(0.0))
    assert firsts(done)[:2] == pytest.approx([11.5, 12.5])
    first_slot_s = min(one.finished_s or 0.0 for one in done.outcomes)
    assert done.outcomes[2].start_s == first_slot_s


def test_an_unknown_model_is_refused_and_nothing_is_lost() -> None:
    done = run(cluster("a"), ask(0.0, "nobody"), ask(0.0))
    assert [one.refused for one in done.outcomes] == [RefusalReason.UNKNOWN_MODEL, None]
    assert not any(one.lost for one in done.outcomes)


def test_a_crash_sends_a_request_elsewhere_with_its_tokens() -> None:
    done = run(cluster("a", nodes=2, copies=2), ask(0.0, answer=30), failures=(WorkerCrash(12.0, "n0-w0", 1000.0),))
    (one,) = done.outcomes
    assert (one.crashes, one.worker_id, one.first_s) == (1, "n1-w0", pytest.approx(11.5))
    had = 1 + 5  # the first, and one each 0.1 s until the crash
    prefill_s = 0.5 + 0.01 * (50 + had)
    assert one.finished_s == pytest.approx(12.0 + 10.5 + prefill_s + 0.1 * (30 - had - 1), abs=0.11)


def test_a_node_that_comes_back_has_its_disk_and_not_its_memory() -> None:
    crash = NodeCrash(20.0, "n0", 5.0)
    done = run(cluster("a"), ask(0.0), ask(21.0), failures=(crash,))
    assert firsts(done) == pytest.approx([11.5, 25.0 + 11.5])


def test_a_node_behind_a_partition_keeps_what_is_loaded() -> None:
    done = run(cluster("a"), ask(0.0), ask(21.0), failures=(Partition(20.0, "n0", 5.0),))
    assert firsts(done) == pytest.approx([11.5, 25.0 + 1.0])


def test_a_slow_disk_slows_a_load_for_as_long_as_it_is_slow() -> None:
    done = run(cluster("a"), ask(0.0), failures=(SlowDisk(2.0, "n0", 0.5, 8.0),))
    assert firsts(done) == pytest.approx([2.0 + 8.0 + 4.0 + 1.5])
