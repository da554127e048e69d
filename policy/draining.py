"""Emptying workers: what idles there goes. What runs there finishes, for nothing new comes."""

from policy.actions import Unload, UnloadReason
from policy.draft import Draft
from policy.knobs import Knobs


def depart(draft: Draft, now: float, _: Knobs) -> list[float]:
    """Unloads every idle replica of a worker that is to become empty, a base's adapters before it. A worker that has
    just failed is not asked again before its time: returns when that is."""
    view = draft.view
    if not view.index.draining():
        return []
    leaving = [seat for worker_id in view.index.draining() for seat in view.replicas.on(worker_id)]
    idle = sorted(seat.spot for seat in leaving if view.idle(seat) and not view.adapters(seat))
    draft.take(Unload(spot, UnloadReason.DRAINED) for spot in idle if not view.distrusts(spot.worker_id, now))
    return [view.distrusted_until_s[spot.worker_id] for spot in idle if view.distrusts(spot.worker_id, now)]
