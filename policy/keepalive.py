"""Which idle replicas have been idle long enough."""

from dataclasses import dataclass

from mesh.facts import ReplicaFacts
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
        if view.idle(member.id, replica)
    ]


def _expiry(view: View, worker_id: str, replica: ReplicaFacts, knobs: Knobs) -> Expiry:
    entry = view.cluster.models.get(replica.model)
    since_s = view.idle_since_s.get(Spot(worker_id, replica.model), 0.0)
    earliest_s = view.distrusted_until_s.get(worker_id, since_s)  # one that failed is not asked again at once
    if entry is None or entry.checkpoint.digest != replica.digest:
        return Expiry(Unload(replica.model, worker_id, UnloadReason.SUPERSEDED), max(since_s, earliest_s))
    keep_s = knobs.keep_alive_s if entry.keep_alive_s is None else entry.keep_alive_s
    return Expiry(Unload(replica.model, worker_id, UnloadReason.IDLE), max(since_s + keep_s, earliest_s))
