"""Our own policy in the simulator: the very `decide` of the scheduler's loop, on the very view that its books build."""

from collections.abc import Sequence

from mesh.facts import ReplicaState
from policy.actions import Action, Load, Place, Refuse, Unload
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Waiting
from sim.policy import ClusterState, Plan, Resident
from sim.published import Published


class Judgement:
    """What services.scheduler does around `decide`, without the waiting."""

    name = "whimbrel"

    def __init__(self, knobs: Knobs) -> None:
        self._knobs, self._books, self._published = knobs, Books(), Published()

    def decide(self, state: ClusterState, now: float) -> Plan:
        """The policy's decision."""
        books = self._books
        books.observe(self._published.facts(state))
        books.copying.under_way = set(state.prefetches)
        self._tell_requests(state)
        self._tell_commands(list(state.residents()))
        decision = decide(books.view(now), now, self._knobs)
        for action in decision.actions:
            self._note(action, now)
        books.claimed(decision.claims)
        return Plan(decision.actions, decision.look_again_s)

    def _note(self, action: Action, now: float) -> None:
        """What is done now."""
        match action:
            case Place(number, spot):
                self._books.placed(number, spot, now)
            case Refuse(number):
                self._books.left(number)
            case Load(spot):
                self._books.load_began(spot)
            case Unload(spot):
                self._books.unload_began(spot)

    def _tell_requests(self, state: ClusterState) -> None:
        """Who came and who went."""
        books = self._books
        waiting = {one.id: one for one in state.waiting}
        seated = {one.id for resident in state.residents() for one in resident.running}
        for number in [one.request_id for one in books.queues if one.request_id not in waiting]:
            books.left(number)
        for number in [number for runs in books.runs.values() for number in runs if number not in seated]:
            books.left(number)
        known = {one.request_id for one in books.queues}
        for one in waiting.values():
            if one.id not in known:
                books.arrived(Waiting(one.id, one.model, one.since_s))

    def _tell_commands(self, residents: Sequence[Resident]) -> None:
        """Which loads and unloads have ended."""
        books = self._books
        loading = {one.spot for one in residents if one.state is ReplicaState.LOADING}
        unloading = {one.spot for one in residents if one.state is ReplicaState.DRAINING}
        for spot in books.loading - loading:
            books.load_ended(spot)
        for spot in books.unloading - unloading:
            books.unload_ended(spot)
