"""When it is worth asking again: the P90 of when a request that came now would have a place."""

from policy.estimate import Work, estimate
from policy.knobs import Knobs
from policy.view import View
from policy.waits import slot_wait


def retry_after_s(view: View, model: str, now: float, knobs: Knobs) -> float:
    """Seconds, behind all that wait for the model: for their turns at the slots of its replicas, be they on their way,
    or until a load is done that is under way. Without a replica, as if it had one slot: memory has to be had first."""
    slots = sum(seat.slots for seat in view.seats(model) if not view.replicas.leaves(seat))
    turn = slot_wait(view.rates, model, len(view.queues.of(model)), slots, knobs)
    loads = (view.loads.rest(spot, now, view.rates, knobs) for spot in view.replicas.loads_of(model))
    return min(one.p90_s for one in (estimate(Work(device=(turn,)), view.rates), *loads) if one)
