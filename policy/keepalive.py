"""Which idle replicas have been idle long enough."""

from dataclasses import dataclass

from mesh.facts import ReplicaFacts, ReplicaState
from policy.actions import Unload, UnloadReason
from policy.knobs import Knobs
from policy.view import Spot, View


@dataclass(frozen=True, slots=True)
class Expiry:
    """When an idle replica should go, and why. `at_s` may be in the past."""

    unload: Unload
    at_s: float


def expiries(view: View, knobs: Knobs) -> list[Expiry]:
    """One for every replica that nothing runs on."""
    return [
        _expiry(view, member.id, replica, knobs)
        for member in view.workers()
        if member.worker
        for replica in member.worker.replicas
        if _idle(view, member.id, replica)
    ]


def _idle(view: View, worker_id: str, replica: ReplicaFacts) -> bool:
    spot = Spot(worker_id, replica.model)
    return replica.state is ReplicaState.READY and spot not in view.unloading and view.busy(worker_id, replica) == 0


def _expiry(view: View, worker_id: str, replica: ReplicaFacts, knobs: Knobs) -> Expiry:
    entry = view.cluster.models.get(replica.model)
    since_s = view.idle_since_s.get(Spot(worker_id, replica.model), 0.0)
    if entry is None or entry.checkpoint.digest != replica.digest:
        return Expiry(Unload(replica.model, worker_id, UnloadReason.SUPERSEDED), since_s)
    keep_s = knobs.keep_alive_s if entry.keep_alive_s is None else entry.keep_alive_s
    return Expiry(Unload(replica.model, worker_id, UnloadReason.IDLE), since_s + keep_s)
