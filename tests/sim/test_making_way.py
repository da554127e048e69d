"""Moves that the policy decides, on a cluster where the nearest worker is often taken."""

from dataclasses import asdict, replace

import pytest

from policy.knobs import Knobs
from sim.arrivals import Gaps, Law
from sim.failures import Partition, WorkerCrash
from sim.judgement import Judgement
from sim.outcome import Run
from sim.run import simulate
from sim.workload import Scope, Workload, model_name
from tests.sim.paper import cluster

WORKLOAD = Workload(
    models=12,
    rps=0.3,
    duration_s=900.0,
    seed=5,
    gaps=Gaps(Law.GAMMA, 4.0),
    scope=Scope.AGGREGATE,
    lengths=("gsm8k-like",),
)
MODELS = [model_name(i) for i in range(12)]
SPEC = cluster(*MODELS, nodes=2, workers=3, dram_bytes=50, dram_bytes_per_s=20.0, disk_bytes_per_s=2.0)


def run(*, moves: bool) -> Run:
    """The same requests, with moves or without; no replica makes way because somebody has waited long."""
    return simulate(SPEC, WORKLOAD.requests(), Judgement(Knobs(hold_s=600.0, moves=moves, ageing_s=1e6)))


def test_requests_move_and_each_still_ends_once() -> None:
    still, moving = run(moves=False), run(moves=True)
    assert not any(one.moves for one in still.outcomes)
    assert any(one.moves for one in moving.outcomes)
    for one in moving.outcomes:
        assert not one.lost
        assert one.refused is None
    assert asdict(run(moves=True)) == asdict(moving)


@pytest.mark.parametrize("kv_bytes_per_token", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_no_failure_makes_it_ask_for_what_cannot_be_or_lose_a_request(seed: int, kv_bytes_per_token: int) -> None:
    """Workers die while requests are on their way to them, or away from them; KV is copied where that is known."""
    crashes = [WorkerCrash(20.0 + 13.0 * n, f"n{n % 2}-w{n % 3}", 5.0) for n in range(18)]
    away = Partition(100.0, "n1", 20.0)
    requests = replace(WORKLOAD, seed=seed).requests()
    models = tuple(replace(one, kv_bytes_per_token=kv_bytes_per_token) for one in SPEC.models)
    spec = replace(SPEC, models=models, node=replace(SPEC.node, origin_bytes_per_s=1e3))
    knobs = Knobs(hold_s=600.0, moves=True, kv_bytes_per_s=1e3, prefill_token_s=0.01)
    done = simulate(spec, requests, Judgement(knobs), [*crashes, away])
    assert not any(one.lost or one.refused for one in done.outcomes)
