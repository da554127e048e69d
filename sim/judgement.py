"""Our own policy in the simulator: the very `decide` of the scheduler's loop, on the very view that its books build."""

from mesh.facts import ReplicaState
from policy.actions import Place
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Waiting
from sim.policy import ClusterState, Plan
from sim.published import Published


class Judgement:
    """What services.scheduler does around `decide`, without the waiting."""

    name = "whimbrel"

    def __init__(self, knobs: Knobs) -> None:
        self._knobs, self._books, self._published = knobs, Books(), Published()

    def decide(self, state: ClusterState, now: float) -> Plan:
        """The policy's decision."""
        books, residents = self._books, list(state.residents())
        books.loading = {one.spot for one in residents if one.state is ReplicaState.LOADING}
        books.unloading = {one.spot for one in residents if one.state is ReplicaState.DRAINING}
        books.copying.under_way = set(state.prefetches)
        placed = {one.spot: len(one.running) for one in residents if one.running}
        waiting = (Waiting(one.id, one.model, one.since_s) for one in state.waiting)
        decision = decide(books.view(self._published.facts(state), waiting, placed, now), now, self._knobs)
        for action in decision.actions:
            if isinstance(action, Place):
                books.used(action.spot)
        return Plan(decision.actions, decision.look_again_s)
