"""Every way in which a request could get a first token, each with what it would cost, or with why it is no way now."""

from dataclasses import dataclass, replace
from heapq import nsmallest
from itertools import islice

from mesh.explanation import Alternative, StartEstimate, Way
from mesh.facts import Member, ModelEntry
from policy import migration
from policy.candidates import Candidate, candidate_at, candidates
from policy.estimate import Estimate, Work, estimate, load_work, prefill, unloading
from policy.knobs import Knobs
from policy.passage import passage
from policy.rates import Portion
from policy.room import cheapest_eviction, free_bytes, missing_bytes
from policy.size import full_bytes, need_bytes
from policy.view import Seat, Spot, View, Waiting
from policy.waits import slot_wait

SHOWN = 20  # of each kind


@dataclass(frozen=True, slots=True)
class Case:
    """A request at a moment. `ahead` are requests of its model that come before it."""

    view: View
    entry: ModelEntry
    request: Waiting
    ahead: int
    now: float
    knobs: Knobs

    def cost(self, work: Work) -> StartEstimate:
        """In seconds."""
        return stated(estimate(work, self.view.rates))

    def prompt(self, member: Member) -> Portion:
        """Of the request, once there is a replica."""
        return prefill(member.node, self.entry.checkpoint.digest, self.request.prompt_tokens, self.knobs)

    def load(self, candidate: Candidate) -> Work:
        """Of a replica there, and the prompt."""
        work = load_work(candidate.load, self.knobs, self.view.loads.beside(candidate.load))
        return replace(work, rest=(*work.rest, self.prompt(candidate.member)))


def alternatives(case: Case) -> list[Alternative]:
    """The quickest first, then those that cannot be taken. Of a large cluster, no more of each kind than are shown: the
    leader has no time for more."""
    view, name = case.view, case.entry.name
    seats = list(view.seats(name))
    unseen = [spot for spot in view.replicas.loads_of(name) if not view.replicas.seat(spot)]
    taken = {spot.worker_id for spot in unseen}
    able = candidates(view, case.entry, case.now, case.knobs, case.request.excluded)
    able = [candidate for candidate in able if candidate.member.id not in taken]
    taken |= {seat.member.id for seat in seats} | {candidate.member.id for candidate in able}
    others = (member for member in view.index.workers.values() if member.id not in taken)
    found = [_at_seat(case, seat) for seat in nsmallest(SHOWN, seats, key=lambda seat: (view.crowd(seat), seat.spot))]
    found += [_join(case, spot) for spot in unseen]
    found += [_at_candidate(case, candidate) for candidate in able]
    found += [_making_way(case, way) for way in migration.ways(view, case.entry, case.now, case.knobs)]
    found += [_elsewhere(case, member) for member in islice(others, SHOWN)]
    return sorted(found, key=_rank)


def stated(one: Estimate) -> StartEstimate:
    """An estimate for who reads it."""
    parts = (one.io_queue_s, one.device_queue_s, one.dram_s, one.disk_s, one.origin_s, one.init_s, one.prefill_s)
    return StartEstimate(one.mean_s, one.p90_s, *parts)


def _rank(one: Alternative) -> tuple[bool, float, str, str]:
    return bool(one.obstacle), one.estimate.mean_s if one.estimate else 0.0, one.worker_id, one.way


def _at_seat(case: Case, seat: Seat) -> Alternative:
    """A replica that is there, or on its way."""
    view, prompt, where = case.view, case.prompt(seat.member), (seat.member.id, seat.member.node)
    if seat.is_loading or seat.spot in view.loading:
        return _join(case, seat.spot)
    obstacle = _seat_obstacle(case, seat)
    if obstacle or view.crowd(seat) < seat.slots:
        return Alternative(Way.SLOT, *where, case.cost(Work(rest=(prompt,))), obstacle=obstacle)
    wait = slot_wait(view.rates, case.entry.name, case.ahead, seat.slots, case.knobs)
    return Alternative(Way.WAIT, *where, case.cost(Work(device=(wait,), rest=(prompt,))))


def _join(case: Case, spot: Spot) -> Alternative:
    """A load under way, whether or not the facts show it yet. Nothing is known of one that nobody saw begin."""
    view, member = case.view, case.view.index.workers.get(spot.worker_id)
    rest = view.loads.rest(spot, case.now, view.rates, case.knobs)
    if member is None or rest is None:
        return Alternative(Way.JOIN, spot.worker_id, member.node if member else "", None)
    rest = replace(rest, prefill_s=view.rates.seconds(case.prompt(member)))
    return Alternative(Way.JOIN, spot.worker_id, member.node, stated(rest))


def _seat_obstacle(case: Case, seat: Seat) -> str:
    if not case.view.settled(seat):
        return "the replica is about to go"
    if case.request.digest not in ("", seat.replica.digest):
        return "the answer has begun with another version of the model"
    former = seat.replica.digest != case.entry.checkpoint.digest and not case.request.digest
    if former and (case.request.current_only or seat not in case.view.former(case.entry)):
        return "it has an older version of the model"
    return _shunned(case, seat.member)


def _at_candidate(case: Case, candidate: Candidate) -> Alternative:
    """A load, into what memory there is or could be."""
    view, entry, member = case.view, case.entry, candidate.member
    where, work = (member.id, member.node), case.load(candidate)
    if free_bytes(view, candidate) >= need_bytes(view, entry, member, candidate.worker):
        return Alternative(Way.LOAD, *where, case.cost(work))
    cost = case.cost(replace(work, device=(unloading(member.node, case.knobs),)))
    missing = missing_bytes(view, entry, candidate)
    plan = cheapest_eviction(view, entry, [candidate], case.now, case.knobs)
    evicts = tuple(unload.spot.model for unload in plan.unloads) if plan else ()
    obstacle = "" if evicts or missing <= 0 else f"{missing} bytes are missing, and too little is idle"
    return Alternative(Way.EVICT, *where, cost, obstacle=obstacle, evicts=evicts)


def _making_way(case: Case, way: migration.Way) -> Alternative:
    """A load where something runs, once that has gone on elsewhere."""
    member, choice = way.candidate.member, way.choice
    one = estimate(case.load(way.candidate), case.view.rates)
    cost = stated(replace(one, device_queue_s=choice.delay_s + case.knobs.unload_s))
    price = passage(case.view, way, case.knobs)
    obstacle = f"it would not win enough: {price}" if case.knobs.moves else f"moves are off; {price}"
    return Alternative(Way.MOVE, member.id, member.node, cost, obstacle=obstacle)


def _elsewhere(case: Case, member: Member) -> Alternative:
    """A worker that cannot be had now, and what a load would have cost there."""
    candidate = next(candidate_at(case.view, case.entry, member, case.knobs), None)
    cost = case.cost(case.load(candidate)) if candidate else None
    return Alternative(Way.LOAD, member.id, member.node, cost, obstacle=_obstacle(case, member))


def _obstacle(case: Case, member: Member) -> str:
    if member.worker is None:
        return "it has not said yet what it has"
    if full_bytes(case.entry, member.worker) > member.worker.memory_bytes:
        needed = full_bytes(case.entry, member.worker)
        return f"it has {member.worker.memory_bytes} bytes of memory, and {needed} are needed"
    if case.view.index.sources.nearest(case.entry.checkpoint.digest, member.node) is None:
        return "no store has the checkpoint"
    return _shunned(case, member) or "it has no room, and too little is idle"


def _shunned(case: Case, member: Member) -> str:
    if member.fence in case.request.excluded:
        return "it has just failed this request"
    if case.view.distrusts(member.id, case.now):
        return "it could not be reached a moment ago"
    return "it is to become empty" if case.view.cluster.is_draining(member) else ""
