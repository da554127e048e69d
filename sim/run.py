"""One simulation from begin to end."""

from collections.abc import Sequence
from functools import partial

from sim.engine import Engine
from sim.failures import Failure
from sim.outcome import Run
from sim.policy import Policy
from sim.request import Request
from sim.scheduler import Scheduler
from sim.spec import ClusterSpec

DRAIN_S = 3600.0  # after the last arrival, what has not ended by then counts as lost


def simulate(spec: ClusterSpec, requests: Sequence[Request], policy: Policy, failures: Sequence[Failure] = ()) -> Run:
    """Runs until every request has ended, or DRAIN_S has passed. Equal arguments, the policy made anew, give equal
    runs."""
    engine = Engine()
    scheduler = Scheduler(engine, spec, policy, len(requests))
    for number, request in enumerate(requests):
        engine.at(request.at_s, partial(scheduler.arrive, number, request))
    for failure in failures:
        engine.at(failure.at_s, partial(failure.strike, engine, scheduler.cluster, scheduler.seating))
    engine.run(until_s=max((request.at_s for request in requests), default=0.0) + DRAIN_S)
    return Run(
        policy=policy.name,
        outcomes=tuple(scheduler.seating.outcomes()),
        loads=tuple(scheduler.cluster.finished),
        busy_gpu_s=sum(worker.device.busy_s for worker in scheduler.cluster.all_workers),
        held_gpu_s=sum(worker.held_s for worker in scheduler.cluster.all_workers),
        simulated_s=engine.now_s,
        events=engine.happened,
        decisions=scheduler.decisions,
    )
