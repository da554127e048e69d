"""One more replica of a model that requests wait for beyond the slots it has: where what that spares them exceeds what
it costs others."""

from dataclasses import dataclass

from mesh.facts import ModelEntry
from policy.candidates import Candidate, candidates, free_candidates, near_candidates
from policy.draft import Draft
from policy.forecast import coming
from policy.knobs import Knobs
from policy.offers import Offers
from policy.room import Plan, cheapest_eviction, free_bytes, spot_of
from policy.size import need_bytes
from policy.view import View
from policy.waits import held_mean_s
from policy.worth import regret_s


@dataclass(frozen=True, slots=True)
class Line:
    """Requests of a model beyond the slots of its replicas, those on their way among them. It moves as slots come free,
    each after `held_s`."""

    beyond: int
    have: int  # replicas
    slots: int  # of each
    held_s: float

    def saved_s(self, load_s: float, coming: float) -> float:
        """Seconds that one more replica, ready in so long, spares all of them together, and those that come until then:
        the triangle between the line as it would have run out and as it runs out now."""
        lasts_s = (self.beyond + coming) * self.held_s / (self.have * self.slots)
        rest_s = max(0.0, lasts_s - load_s)
        return 0.5 * rest_s * rest_s * self.slots / self.held_s * self.have / (self.have + 1)


@dataclass(frozen=True, slots=True)
class Growth:
    """Where one more replica would be, what has to leave for it (None: nothing), and the seconds that it wins."""

    candidate: Candidate
    plan: Plan | None
    wins_s: float


def line_of(draft: Draft, entry: ModelEntry, have: int, knobs: Knobs) -> Line | None:
    """Of a model with so many replicas, those on their way included; None: these have slots for more."""
    view, waiting = draft.view, draft.waiting(entry.name)
    slots = view.index.sizes().least_slots
    beyond = waiting + sum([view.crowd(seat) for seat in view.up(entry)]) - have * slots
    if beyond < 0:
        return None
    return Line(min(waiting, beyond), have, slots, held_mean_s(view.rates, entry.name, knobs))


@dataclass(frozen=True, slots=True)
class Growing:
    """A model that has a line, at one moment."""

    view: View
    entry: ModelEntry
    line: Line
    now: float
    knobs: Knobs

    def best(self) -> Growth | None:
        """Where one more replica wins most; None: nowhere."""
        view, entry, now, knobs = self.view, self.entry, self.now, self.knobs
        able = {one.member.id: one for one in candidates(view, entry, now, knobs)}
        able |= {one.member.id: one for one in free_candidates(view, entry, now, Offers(view, entry, knobs))}
        found = [made for one in able.values() if self._may_come_to(one) and (made := self._at(one))]
        return min(found, key=lambda made: (-made.wins_s, made.candidate.member.id), default=None)

    def _may_come_to(self, one: Candidate) -> bool:
        """What its node does not have would hold a device, and the network, for long: that is for a model that has no
        replica yet; or one on each worker near it, while nobody else waits."""
        view, queues = self.view, self.view.queues
        if spot_of(self.entry, one) in view.index.claims_on(one.member.id):
            return False  # it is about to
        if not one.load.origin_bytes:
            return True
        alone = len(queues) == len(queues.of(self.entry.name))
        return alone and not near_candidates(view, self.entry, self.now, self.knobs)

    def _at(self, one: Candidate) -> Growth | None:
        """There, if it wins anything."""
        view, entry = self.view, self.entry
        more = coming(view.demand.histories.get(entry.name), self.now, one.estimate_s).surely
        saved_s = self.line.saved_s(one.estimate_s, more)
        if saved_s <= 0.0:
            return None
        if free_bytes(view, one) >= need_bytes(view, entry, one.member, one.worker):
            return Growth(one, None, saved_s)
        plan = cheapest_eviction(view, entry, [one], self.now, self.knobs)
        wins_s = saved_s - self._lost_s(plan) if plan else 0.0
        return Growth(one, plan, wins_s) if wins_s > 0.0 else None

    def _lost_s(self, plan: Plan) -> float:
        """What the loss of those that leave is expected to cost."""
        seats = (self.view.replicas.seat(one.spot) for one in plan.unloads)
        return sum(regret_s(self.view, seat, self.now, self.knobs.horizon_s, self.knobs) for seat in seats if seat)
