"""What holds for every policy: nothing impossible is asked for, every request ends once, a seed gives the same run."""

from dataclasses import asdict, replace

import pytest

from sim.arrivals import Gaps, Law
from sim.failures import NodeCrash, Partition, SlowDisk, WorkerCrash
from sim.policies import POLICIES
from sim.run import simulate
from sim.workload import Scope, Workload, model_name
from tests.sim.paper import cluster

MODELS = [model_name(i) for i in range(8)]
SPEC = cluster(*MODELS, nodes=2, workers=2, memory_bytes=30, slots=3, dram_bytes_per_s=20.0, disk_bytes_per_s=8.0)
WORKLOAD = Workload(8, 0.3, 300.0, seed=3, skew=0.9, gaps=Gaps(Law.GAMMA, 4.0), lengths=("gsm8k-like",))
FAILURES = (
    WorkerCrash(40.0, "n0-w1", 30.0),
    SlowDisk(60.0, "n1", 0.1, 60.0),
    Partition(120.0, "n1", 40.0),
    NodeCrash(200.0, "n0", 60.0),
)


@pytest.mark.parametrize("name", POLICIES)
def test_every_request_ends_whatever_fails_and_the_same_seed_gives_the_same_run(name: str) -> None:
    requests = [*WORKLOAD.requests()]
    run, again = (simulate(SPEC, requests, POLICIES[name](7), FAILURES) for _ in range(2))
    assert not any(one.lost for one in run.outcomes)
    assert sum(one.crashes for one in run.outcomes) > 0
    assert asdict(run) == asdict(again)


@pytest.mark.parametrize("name", POLICIES)
def test_a_crowd_of_all_models_is_served_to_the_last(name: str) -> None:
    crowd = replace(WORKLOAD, rps=3.0, duration_s=30.0, scope=Scope.AGGREGATE)
    spec = replace(SPEC, node=replace(SPEC.node, dram_bytes=60))
    run = simulate(spec, crowd.requests(), POLICIES[name](7))
    assert not any(one.lost for one in run.outcomes)
