"""What has happened in the simulated cluster since the last moment, told to the books as the scheduler's loop tells its
own: once, as it happens."""

from collections.abc import Callable, Iterable

from mesh.facts import ClusterFacts, ReplicaState, Tier
from policy.actions import Action, Load, MakeWay, Move, Place, Prefetch, Refuse, Unload, Yield
from policy.books import Books
from policy.copying import Copy
from policy.knobs import Knobs
from policy.start import hauled
from policy.view import Spot, Waiting
from sim.policy import ClusterState, NodeState, Resident, WaitingRequest, WorkerState
from sim.turns import Turns

NOTHING: dict[Spot, Resident] = {}


class Telling:
    """Of one simulation to one set of books. `shown` is what the policy is to know of a request."""

    def __init__(self, books: Books, knobs: Knobs, shown: Callable[[WaitingRequest], Waiting]) -> None:
        self._books, self._knobs, self._shown = books, knobs, shown
        self._nodes: dict[str, NodeState] = {}
        self._workers: dict[str, WorkerState] = {}
        self._residents: dict[str, dict[Spot, Resident]] = {}  # by worker
        self._waiting: dict[str, WaitingRequest] = {}
        self.turns = Turns(books, knobs)

    def happened(self, state: ClusterState, now: float) -> None:
        """Requests that came or went, and commands that came to their end."""
        self._tell_prefetches(state, now)
        if len(state.nodes) != len(self._nodes) or any(self._nodes.get(node.id) is not node for node in state.nodes):
            self._nodes_changed(state, now)
        self._tell_waiting(state)

    def acts(self, action: Action, facts: ClusterFacts, now: float) -> None:
        """What is done now."""
        books = self._books
        match action:
            case Place(number, spot):
                del self._waiting[number]
                books.placed(number, spot, now)
            case Refuse(number):
                del self._waiting[number]
                books.left(number, now)
            case Move(number, spot):
                books.moves(number, spot, now)
            case Prefetch(store_id, digest, tier):
                books.copying.began(Copy(store_id, digest, tier))
            case MakeWay(plan):
                books.moving.add(plan)
            case Yield(spots, to):
                books.yielding.add(spots, to)
            case Load(spot):
                if load := hauled(facts, action):
                    books.loads.begin(spot, load, now, books.rates, self._knobs)
                books.load_began(action, now)
                self.turns.waiting[spot] = action
            case Unload(spot):
                books.unload_began(spot)

    def _nodes_changed(self, state: ClusterState, now: float) -> None:
        nodes = [node for node in state.nodes if self._nodes.get(node.id) is not node]
        changed = [one for node in nodes for one in node.workers if self._workers.get(one.id) is not one]
        self._nodes = {node.id: node for node in state.nodes}
        before = {spot for one in changed for spot in self._residents_of(one.id)}
        for one in changed:
            self._workers[one.id] = one
            self._residents[one.id] = {resident.spot: resident for resident in one.residents}
        if len(self._workers) != sum([len(node.workers) for node in state.nodes]):
            before |= self._forget(state)
        self._tell_running(before, now)
        for number in [one for one in self._books.moving.goals if len(self._found(one)) < 2]:
            self._books.stays(number)
        self._tell_commands(nodes, now)

    def _forget(self, state: ClusterState) -> set[Spot]:
        """Workers that have failed: returns what they had."""
        gone = self._workers.keys() - {one.id for one in state.workers()}
        spots = {spot for worker_id in gone for spot in self._residents[worker_id]}
        for worker_id in gone:
            del self._workers[worker_id], self._residents[worker_id]
        return spots

    def _tell_running(self, spots: set[Spot], now: float) -> None:
        """Which requests have given their place on one of these back, or changed it for another."""
        books = self._books
        for spot in sorted([spot for spot in spots if spot in books.runs]):
            resident = self._residents_of(spot.worker_id).get(spot)
            there = resident.request_ids if resident else ()
            for number in sorted([number for number in books.runs[spot] if number not in there]):
                if number in books.moving.goals and (found := self._found(number)):
                    books.moved(number, found[0], now)
                else:
                    books.left(number, now)

    def _found(self, number: str) -> list[Spot]:
        """Where a request has a slot: at two places while it moves."""
        everywhere = (one for residents in self._residents.values() for one in residents.values())
        return [one.spot for one in everywhere if number in one.request_ids]

    def _tell_commands(self, changed: Iterable[NodeState], now: float) -> None:
        """How far loads have come, and which loads and unloads have ended."""
        books = self._books
        for load in [load for node in changed for load in node.loads]:
            if under_way := books.loads.by_spot.get(load.spot):
                books.loads.progressed(load.spot, under_way.load.bytes - load.left_bytes, now)
        for spot in sorted([spot for spot in books.loading if not self._loads(spot)]):  # each teaches the next
            self.turns.waiting.pop(spot, None)
            if self._state(spot) is ReplicaState.READY:
                books.loads.done(spot, now, books.rates, self._knobs)
            else:
                books.loads.end(spot)
            books.load_ended(spot, now)
        for spot in sorted([spot for spot in books.unloading if self._state(spot) is not ReplicaState.DRAINING]):
            books.unload_ended(spot)

    def _tell_prefetches(self, state: ClusterState, now: float) -> None:
        """Which have ended, and of these which have not brought what they were to bring."""
        copying = self._books.copying
        for copy in sorted(copying.under_way - state.prefetches):
            copying.ended(copy)
            nodes = [node for node in state.nodes if node.store_id == copy.store_id]
            held = [node.dram if copy.tier is Tier.DRAM else node.disk for node in nodes]
            if not held or held[0].get(copy.digest, 0) < state.models[copy.digest].bytes:
                copying.bar(copy.store_id, copy.digest, now + self._knobs.prefetch_bar_s, whole=True)

    def _tell_waiting(self, state: ClusterState) -> None:
        """Who has come; those who come anew after a crash or a preemption are in the midst of the others."""
        known, came = self._waiting, list[WaitingRequest]()
        for one in reversed(state.waiting):
            if known.get(one.id) is one:
                break
            came.append(one)
        if len(known) + len(came) != len(state.waiting):
            came = [one for one in reversed(state.waiting) if known.get(one.id) is not one]
        for one in reversed(came):
            known[one.id] = one
            self._books.arrived(self._shown(one))

    def _residents_of(self, worker_id: str) -> dict[Spot, Resident]:
        return self._residents.get(worker_id, NOTHING)

    def _loads(self, spot: Spot) -> bool:
        """Whether it is on its way, or waits for its turn on a worker that is there."""
        waits = spot in self.turns.waiting and spot.worker_id in self._workers
        return waits or self._state(spot) is ReplicaState.LOADING

    def _state(self, spot: Spot) -> ReplicaState | None:
        resident = self._residents_of(spot.worker_id).get(spot)
        return resident.state if resident else None
