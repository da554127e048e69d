"""The scheduler on paper: shows the policy each moment at which something has happened, and does what it says."""

from policy.actions import Load, Move, Place, Prefetch, Refuse, Unload
from policy.copying import Copy
from sim.cluster import Cluster
from sim.engine import Engine, Event
from sim.observer import Observer
from sim.policy import Action, Policy, Preempt
from sim.request import Request
from sim.requests import Ongoing
from sim.seating import Seating
from sim.spec import ClusterSpec

DECIDES = 1  # the rank of a decision: after all else of its moment


class Scheduler:
    """Never ticks: it looks when something has happened, or at the moment that the policy has named."""

    def __init__(self, engine: Engine, spec: ClusterSpec, policy: Policy, requests: int) -> None:
        self._engine, self._policy, self._requests = engine, policy, requests
        self.cluster = Cluster(engine, spec, self.wake)
        self._observer = Observer(engine, self.cluster)
        self.seating = Seating(engine, self.cluster, self._observer)
        self._look: Event | None = None
        self.decisions = 0

    def wake(self) -> None:
        """Something has happened: the policy is asked once for all that happens at this moment."""
        if self._look is None or self._look.at_s > self._engine.now_s:
            self._look_at(self._engine.now_s)

    def arrive(self, number: int, request: Request) -> None:
        """A request comes."""
        one = Ongoing(number, request, self._engine.now_s)
        self.seating.waiting[one.id] = one
        self.wake()

    def _look_at(self, at_s: float) -> None:
        if self._look:
            self._look.cancel()
        self._look = self._engine.at(at_s, self._decide, DECIDES)

    def _decide(self) -> None:
        self._look = None
        self.decisions += 1
        now, seating = self._engine.now_s, self.seating
        plan = self._policy.decide(self._observer.state(seating.waiting.values(), seating.running), now)
        for action in plan.actions:
            self._act(action)
        if len(seating.ended) == self._requests:
            self._engine.stop()
        if plan.look_again_s is not None:
            self._look_again_at(max(now, plan.look_again_s))

    def _look_again_at(self, at_s: float) -> None:
        """Unless what was done by now has somebody look before."""
        if self._look is None:
            self._look_at(at_s)

    def _act(self, action: Action) -> None:
        match action:
            case Place(request_id, spot):
                self.seating.place(request_id, spot)
            case Refuse(request_id, reason, _):
                self.seating.refuse(request_id, reason)
            case Load(spot, store_id):
                self.cluster.load(spot, store_id)
            case Unload(spot, _):
                self.cluster.unload(spot)
            case Preempt(request_id):
                self.seating.preempt(request_id)
            case Prefetch(store_id, digest, tier, instead):
                self.cluster.prefetch(Copy(store_id, digest, tier), instead)
            case Move(request_id, to, kind):
                self.seating.move(request_id, to, kind)
