"""What an idle replica is worth to those who may come: who leaves first when memory is wanted. Pure."""

from policy.estimate import ALONE, haul
from policy.forecast import returns
from policy.knobs import Knobs
from policy.prices import Prices
from policy.size import version_of
from policy.view import Seat, Spot, View


def worth(view: View, seat: Seat, now: float, knobs: Knobs) -> float:
    """Seconds that keeping it for the horizon is expected to save, a byte (GreedyDual: Cherkasova, 1998; Fuerst and
    Sharma, FaasCache, 2021)."""
    return regret_s(view, seat, now, knobs.horizon_s, knobs) / max(1, seat.replica.bytes)


def regret_s(view: View, seat: Seat, now: float, within_s: float, knobs: Knobs) -> float:
    """Seconds that its loss is expected to cost: the chance that somebody comes within so long, times what a load would
    take then. 0 of what nobody will ask for, and of what others can do."""
    history = view.demand.histories.get(seat.spot.model)
    if history is None or view.is_superseded(seat) or is_spare(view, seat, now, knobs):
        return 0.0
    pause_s = now - history.last_s
    return returns(history, pause_s, pause_s + within_s).mean * _reload_s(view, seat, knobs)


def is_promised(view: View, seat: Seat) -> bool:
    """Whether its model would have fewer replicas without it than it is to have."""
    entry = view.cluster.models.get(seat.spot.model)
    if entry is None or not entry.min_replicas or view.cluster.is_draining(seat.member):
        return False
    return seat.spot.digest == entry.checkpoint.digest and len(view.up(entry)) <= entry.min_replicas


def is_spare(view: View, seat: Seat, now: float, knobs: Knobs) -> bool:
    """Whether the other replicas of its model have been enough for long, and it is the one that goes first."""
    since_s, entry = view.surplus_since_s.get(seat.spot.model), view.cluster.models.get(seat.spot.model)
    if since_s is None or entry is None or now < since_s + knobs.scale_in_s:
        return False
    return seat.spot == spare(view.up(entry), view)


def spare(seats: list[Seat], view: View) -> Spot | None:
    """The one of a model's replicas that the others can do without first: the least busy."""
    return min(((view.crowd(seat), seat.spot) for seat in seats), default=(0, None))[1] if len(seats) > 1 else None


def _reload_s(view: View, seat: Seat, knobs: Knobs) -> float:
    """What a load would take there; as long as anybody would wait, where no store has it any more."""
    version, source = version_of(view, seat.spot), view.index.sources.nearest(seat.spot.digest, seat.member.node)
    if version is None or source is None:
        return knobs.hold_s
    return Prices(view.rates, version.architecture, knobs).mean_s(haul(version, source, seat.member), ALONE)
