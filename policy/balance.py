"""Requests of a replica that has much more to do than another of its model: one at a time goes over, where all who
share a device with it, before and after, win more by it together than it costs."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from policy.actions import Move, MoveReason
from policy.draft import Draft
from policy.knobs import Knobs
from policy.relocation import has_room, move, rests, route, transfer
from policy.tally import uneven_by
from policy.transfer import BURNT
from policy.view import Running, Seat, View
from policy.waits import held_mean_s, left_s
from policy.worth import is_spare

MIDWAY = 0.5  # of an answer: what those who run have left, on average


@dataclass(frozen=True, slots=True)
class Device:
    """How much a worker has to do: requests, and how long they are thought to run yet, all together. What that comes to
    does not change with time alone."""

    requests: int
    left_s: float

    def pace(self, knobs: Knobs, more: int = 0) -> float:
        """How long a token takes with so many more, in times of what it takes for one request alone."""
        return 1.0 + knobs.crowding * max(0, self.requests + more - 1)


@dataclass(frozen=True, slots=True)
class Passage:
    """From a replica to another, and what their devices have to do."""

    hot: Seat
    cool: Seat
    source: Device
    target: Device

    def wins_s(self, view: View, one: Running, now: float, knobs: Knobs) -> float:
        """Seconds that all requests on both devices win together if one goes over, less what it costs: its gap, what
        the target's others wait for its tokens, and what is burnt."""
        own_s = left_s(view.rates, self.hot.spot.model, one, now, knobs)
        way = transfer(view, route(view, self.hot, self.cool.spot), one, now, knobs)
        source, target = self.source, self.target
        before, after = source.pace(knobs), target.pace(knobs, 1)
        goes_s = max(0.0, own_s - way.took_s) * (1.0 - after / before)
        stay_s = source.left_s * (1.0 - 1.0 / source.requests) * (1.0 - source.pace(knobs, -1) / before)
        there_s = target.left_s * (after / target.pace(knobs) - 1.0)
        cost_s = way.gap_s + way.device_s * target.requests + BURNT * way.took_s
        won_s = goes_s + stay_s - there_s
        return won_s - cost_s if cost_s < (1.0 - knobs.move_wins_share) * won_s else 0.0


def even_out(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Looks at uneven models that were touched or share a worker with one that was, and at those of which somebody may
    move again. Returns when the next may."""
    view = draft.view
    if not knobs.moves or not view.uneven:
        return []
    look = view.moving.since.look(now, knobs.move_rest_s)
    for name in sorted(_changed(view, look.due)):
        draft.take(_over(view, name, now, knobs))
    return [] if look.next_s is None else [look.next_s]


def _changed(view: View, rested: Iterable[str]) -> Collection[str]:
    if view.touched is None:
        return view.uneven
    workers = {seat.spot.worker_id for model in view.touched for seat in view.replicas.seats(model)}
    beside = {seat.spot.model for worker_id in workers for seat in view.replicas.on(worker_id)}
    return view.uneven & (view.touched | beside | {view.where[one].model for one in rested if one in view.where})


def _over(view: View, name: str, now: float, knobs: Knobs) -> list[Move]:
    """The request that goes over, if one does: of those on the fullest replica, that by which most is won."""
    entry = view.cluster.models.get(name)
    up, taken = view.up(entry) if entry else [], view.moving.workers()
    hot = max(
        (one for one in up if one.member.id not in taken), key=lambda seat: (view.crowd(seat), seat.spot), default=None
    )
    able = (one for one in up if one is not hot and has_room(view, one, now) and not is_spare(view, one, now, knobs))
    cool = min(able, key=lambda seat: (view.crowd(seat), seat.spot), default=None)
    if hot is None or cool is None or view.crowd(hot) - view.crowd(cool) < uneven_by(up):
        return []
    passage = Passage(hot, cool, _device(view, hot, knobs), _device(view, cool, knobs))
    going = [one for one in view.running(hot.spot) if not rests(one, now, knobs)]
    won = ((passage.wins_s(view, one, now, knobs), one.request_id, one) for one in going)
    best_s, _, best = max(won, default=(0.0, "", None))
    if best is None or best_s < knobs.move_wins_s:
        return []
    return [move(view, hot, cool.spot, best, MoveReason.BALANCE, now=now, knobs=knobs)]


def _device(view: View, seat: Seat, knobs: Knobs) -> Device:
    """What a replica shares its device with, its own included."""
    seats = view.replicas.on(seat.member.id)
    each_s = {one.spot: MIDWAY * held_mean_s(view.rates, one.spot.model, knobs) for one in seats}
    return Device(sum(map(view.busy, seats)), sum(view.busy(one) * each_s[one.spot] for one in seats))
