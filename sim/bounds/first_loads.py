"""What every model's first load alone makes of latencies: the run of a policy that nothing else ever holds up.

Whoever asks for a model first cannot be answered before a load of it, nor can those who come while that must still be
under way; all others have their own prompt to wait for, as if it had a device for itself. No policy is below this at
any quantile that loads nothing nobody has asked for, and refuses nobody. It has endless memory, and no queues: how much
of the rest is to be had is not said.
"""

from collections.abc import Sequence

from mesh.facts import Tier
from policy.actions import RefusalReason
from sim.bounds.physics import load_s, on_disk, prefills_s
from sim.outcome import LoadDone, Outcome, Run
from sim.request import Request
from sim.spec import ClusterSpec

NOWHERE = ""  # no worker in particular


def first_loads(spec: ClusterSpec, requests: Sequence[Request]) -> Run:
    """Of requests in order of arrival. Decoding counts for nothing: answers end with their first token."""
    models, there = {model.name: model for model in spec.models}, on_disk(spec)
    loads, outcomes = dict[str, LoadDone](), list[Outcome]()
    for request in requests:
        at_s, model = request.at_s, models.get(request.model)
        if model is None:
            outcomes.append(_outcome(request, None, RefusalReason.UNKNOWN_MODEL, at_s))
            continue
        if model.name not in loads:
            tier = Tier.DISK if model.name in there else Tier.ORIGIN
            loads[model.name] = LoadDone(NOWHERE, model.name, at_s, at_s + load_s(spec.node, model, tier))
        start_s = max(at_s, loads[model.name].ready_s)
        outcomes.append(_outcome(request, start_s + model.costs.prefill(request.prompt_tokens)))
    loading_s, prefilling_s = sum(one.ready_s - one.began_s for one in loads.values()), prefills_s(spec, requests)
    return Run(
        policy="first-loads",
        outcomes=tuple(outcomes),
        loads=tuple(loads.values()),
        busy_gpu_s=prefilling_s,
        held_gpu_s=loading_s + prefilling_s,
        simulated_s=max((one.first_s or 0.0 for one in outcomes), default=0.0),
        events=0,
        decisions=0,
    )


def _outcome(
    request: Request, first_s: float | None, refused: RefusalReason | None = None, refused_s: float | None = None
) -> Outcome:
    return Outcome(
        request=request,
        start_s=None,
        first_s=first_s,
        finished_s=first_s,
        worker_id=NOWHERE,
        moves=0,
        preemptions=0,
        crashes=0,
        refused=refused,
        refused_s=refused_s,
    )
