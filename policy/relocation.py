"""One request's way from a replica to another of the same version: what it takes, and who takes part in moves now."""

from mesh.facts import CheckpointSummary
from policy.actions import Move, MoveReason
from policy.knobs import Knobs
from policy.size import version_of
from policy.spot import Spot
from policy.transfer import Route, Transfer, quicker, tokens_of
from policy.view import Running, Seat, View


def route(view: View, source: Seat, goal: Spot) -> Route:
    """Of all that runs there. Of a version that the catalogue has forgotten, nothing is known but its name."""
    version = version_of(view, source.spot)
    unknown = CheckpointSummary(source.spot.digest, 0, "", "", 0, 0, 0, 0, runner=source.replica.runner)
    return Route(source.member.node, view.index.workers[goal.worker_id].node, version or unknown)


def transfer(view: View, way: Route, one: Running, now: float, knobs: Knobs) -> Transfer:
    """What it takes to have a request there, in the quicker way."""
    tokens = tokens_of(one, way.version, view.rates, now, knobs)
    return quicker(way, tokens, view.rates, knobs)


def move(view: View, source: Seat, goal: Spot, one: Running, reason: MoveReason, *, now: float, knobs: Knobs) -> Move:
    """Lets it go on there."""
    way = transfer(view, route(view, source, goal), one, now, knobs)
    return Move(one.request_id, goal, way.kind, reason)


def rests(one: Running, now: float, knobs: Knobs) -> bool:
    """Whether a request was moved a moment ago, or is on its way, and stays where it is or will be."""
    if one.stays:
        return True
    return one.moved_s is not None and now < one.moved_s + knobs.move_rest_s


def has_room(view: View, seat: Seat, now: float) -> bool:
    """Whether a replica takes a request that moves: it answers, stays, has a slot, and nobody else is on the way from
    or to its worker."""
    if not view.settled(seat) or view.crowd(seat) >= seat.slots:
        return False
    if seat.spot in view.yielding.to or view.moving.leaves(seat.spot):
        return False
    if view.cluster.is_draining(seat.member) or view.distrusts(seat.member.id, now):
        return False
    return seat.member.id not in view.moving.workers()
