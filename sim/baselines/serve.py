"""What most baselines do with those that wait: a slot, else a load under way, else a new replica."""

from collections.abc import Callable, Iterable

from sim.baselines.desk import Desk
from sim.policy import Resident, WaitingRequest


def serve(
    desk: Desk,
    waiting: Iterable[WaitingRequest],
    pick: Callable[[list[Resident]], Resident],
    make: Callable[[WaitingRequest], bool],
) -> None:
    """One after the other. `pick` chooses among replicas with a slot; `make` sees to a replica for a request that has
    none, and says whether it could: what it could not for one, it cannot for others of the model."""
    blocked = set[str]()
    for request in waiting:
        if request.model not in desk.models:
            desk.refuse(request)
        elif open_ := desk.open(request.model):
            desk.place(request, pick(open_))
        elif request.model not in blocked and not desk.join(request.model) and not make(request):
            blocked.add(request.model)


def least_busy(open_: list[Resident], desk: Desk) -> Resident:
    """The replica with most open slots."""
    return max(open_, key=lambda one: (desk.open_slots(one), one.spot))
