from dataclasses import asdict

import pytest

from policy.actions import Action, Load, Place, Unload
from policy.knobs import Knobs
from sim.arrivals import Gaps, Law
from sim.engine import Engine
from sim.failures import NodeCrash, Partition, SlowDisk, WorkerCrash
from sim.judgement import Judgement
from sim.outcome import Run
from sim.policy import ClusterState, Plan
from sim.published import Published
from sim.run import simulate
from sim.scheduler import Scheduler
from sim.workload import Workload, model_name
from tests.sim.paper import cluster

WORKLOAD = Workload(
    models=12, rps=0.3, duration_s=600.0, seed=3, skew=0.9, gaps=Gaps(Law.GAMMA, 4.0), lengths=("gsm8k-like",)
)
MODELS = [model_name(i) for i in range(12)]
SPEC = cluster(*MODELS, nodes=2, workers=2, memory_bytes=30, dram_bytes_per_s=20.0, disk_bytes_per_s=8.0)
FAILURES = (
    WorkerCrash(50.0, "n0-w1", 30.0),
    SlowDisk(100.0, "n1", 0.1, 60.0),
    Partition(200.0, "n1", 40.0),
    NodeCrash(300.0, "n0", 60.0),
)


class Watched:
    """Looks at every state that our policy is shown, and keeps what it does."""

    name = "whimbrel"

    def __init__(self) -> None:
        self._ours = Judgement(Knobs(hold_s=300.0))
        self.actions: list[Action] = []
        self.kept = Published()

    def decide(self, state: ClusterState, now: float) -> Plan:
        for worker in state.workers():
            assert worker.free_bytes >= 0
            assert all(one.open_slots >= 0 or not one.running for one in worker.residents)
        for node in state.nodes:
            assert sum(node.dram.values()) <= 20
        seated = [one.id for resident in state.residents() for one in resident.running]
        assert len(seated) == len(set(seated))
        assert not set(seated) & {one.id for one in state.waiting}
        assert self.kept.facts(state) == Published().facts(state)
        assert self.kept.facts(state) is self.kept.facts(state)
        plan = self._ours.decide(state, now)
        self.actions += plan.actions  # type: ignore[arg-type]
        return plan


@pytest.fixture(scope="module")
def watched() -> tuple[Run, Watched]:
    policy = Watched()
    return simulate(SPEC, WORKLOAD.requests(), policy, FAILURES), policy


def test_no_device_is_booked_twice_and_every_request_ends_once(watched: tuple[Run, Watched]) -> None:
    run, policy = watched
    assert len(run.outcomes) == len(WORKLOAD.requests())
    assert not any(one.lost for one in run.outcomes)
    for kind in (Place, Load, Unload):
        assert any(isinstance(action, kind) for action in policy.actions)
    assert sum(one.crashes for one in run.outcomes) > 0
    for one in run.outcomes:
        if one.refused is None:
            assert one.start_s is not None
            assert one.first_s is not None
            assert one.finished_s is not None
            assert one.request.at_s <= one.start_s < one.first_s <= one.finished_s


def test_the_same_seed_gives_the_same_run(watched: tuple[Run, Watched]) -> None:
    again = simulate(SPEC, WORKLOAD.requests(), Judgement(Knobs(hold_s=300.0)), FAILURES)
    assert asdict(again) == asdict(watched[0])


def test_every_byte_of_a_load_went_through_a_bus_and_came_from_somewhere() -> None:
    engine = Engine()
    requests = WORKLOAD.requests()
    scheduler = Scheduler(engine, SPEC, Judgement(Knobs(hold_s=300.0)), len(requests))
    for number, request in enumerate(requests):
        engine.at(request.at_s, lambda number=number, request=request: scheduler.arrive(number, request))  # type: ignore[misc]
    engine.run()
    moved = sum(worker.bus.moved_bytes for worker in scheduler.cluster.workers.values())
    coming = sum(10 - load.left_bytes for load in scheduler.cluster.loads.values())  # nobody waits for these
    assert moved == pytest.approx(10 * len(scheduler.cluster.finished) + coming, rel=1e-4)
    far = sum(node.disk.moved_bytes + node.network.moved_bytes for node in scheduler.cluster.nodes.values())
    assert 0 < far < moved
