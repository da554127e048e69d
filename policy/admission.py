"""Who cannot have a first token in time. What nobody has ever seen take long is no reason to turn anybody away."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from policy.actions import Action, Load, Place
from policy.estimate import load_work, prefill
from policy.knobs import Knobs
from policy.rates import Z90, Portion, Quantity, Rate
from policy.spot import Spot
from policy.start import hauled
from policy.view import View, Waiting


@dataclass(frozen=True, slots=True)
class Prospect:
    """Seconds until a first token. `variance` is of the logarithm."""

    mean_s: float = 0.0
    variance: float = 0.0

    def at_s(self, deviations: float) -> float:
        """Of a log-normal law."""
        return self.mean_s * math.exp(deviations * math.sqrt(self.variance) - self.variance / 2)

    def then(self, other: "Prospect") -> "Prospect":
        """One after the other."""
        mean_s = self.mean_s + other.mean_s
        if not mean_s:
            return Prospect()
        mine, its = self.mean_s / mean_s, other.mean_s / mean_s
        return Prospect(mean_s, mine * mine * self.variance + its * its * other.variance)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is too late, and when it will be if nothing changes. `retry_after_s` is when another like it
    could be in time; None: not by waiting."""

    late: bool
    late_at_s: float
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """Judges the requests of one moment."""

    view: View
    now: float
    knobs: Knobs

    def judge(self, request: Waiting, deadline_s: float, chosen: Sequence[Action], ahead: int) -> Verdict:
        """Of a request for which this was chosen, or which waits behind `ahead` others of its model.

        One that has just come is promised its first token in time, or turned away: nine in ten have to make it. One
        that was promised it is given up once nine in ten would not.
        """
        prospect = self._prospect(request, chosen, ahead)
        given_up_s = deadline_s - prospect.at_s(-Z90)
        late_at_s = deadline_s - prospect.at_s(Z90) if request.request_id in self.view.fresh else given_up_s
        if self.now < late_at_s:
            return Verdict(False, given_up_s)
        begins = any(isinstance(action, Load) for action in chosen)
        return Verdict(True, late_at_s, None if begins else self.now - late_at_s)

    def _prospect(self, request: Waiting, chosen: Sequence[Action], ahead: int) -> Prospect:
        waits = [Prospect() for action in chosen if isinstance(action, Place)]
        waits += [self._load(action) for action in chosen if isinstance(action, Load)]
        waits = waits or [*self._turns(request, ahead), *self._loads(request)]
        soonest = min(waits, key=lambda wait: wait.mean_s, default=Prospect())
        return soonest.then(self._known([prefill("", self._digest(request), request.prompt_tokens, self.knobs)]))

    def _turns(self, request: Waiting, ahead: int) -> Iterator[Prospect]:
        """Until so many requests, and one more, have ended on the replicas that are there: of an Erlang law, whose mean
        is not quite known."""
        view = self.view
        seats = [s for s in view.seats(request.model) if view.settled(s) and s.member.fence not in request.excluded]
        held = view.rates.learnt.get(Rate(Quantity.HELD, "", request.model))
        if slots := sum(seat.slots for seat in seats):
            spread = math.log1p(1 / (ahead + 1))
            yield Prospect(held.mean_s * (ahead + 1) / slots, held.variance + spread) if held else Prospect()

    def _loads(self, request: Waiting) -> Iterator[Prospect]:
        """Until a replica is ready that is on its way."""
        digest = self._digest(request)
        ours = (spot for spot in self.view.replicas.loads_of(request.model) if spot.digest == digest)
        return map(self._rest, ours)

    def _rest(self, spot: Spot) -> Prospect:
        view, knobs = self.view, self.knobs
        one, rest = view.loads.by_spot.get(spot), view.loads.rest(spot, self.now, view.rates, knobs)
        if one is None or rest is None or not self._all_known(load_work(one.load, knobs).portions()):
            return Prospect()
        return Prospect(rest.mean_s, rest.variance)

    def _load(self, action: Load) -> Prospect:
        """Of one that is to begin."""
        load = hauled(self.view.cluster, action)
        return self._known(load_work(load, self.knobs, self.view.loads.beside(load)).portions()) if load else Prospect()

    def _known(self, portions: Iterable[Portion]) -> Prospect:
        """How long they take together, if each of them was ever seen."""
        rates, parts = self.view.rates, [portion for portion in portions if portion.amount > 0]
        if not self._all_known(parts):
            return Prospect()
        return Prospect(sum(map(rates.seconds, parts)), rates.variance(parts))

    def _all_known(self, portions: Iterable[Portion]) -> bool:
        learnt = self.view.rates.learnt
        return all(one.rate in learnt or one.rate._replace(node="") in learnt for one in portions)

    def _digest(self, request: Waiting) -> str:
        entry = self.view.entry(request.model)
        return entry.checkpoint.digest if entry else ""
