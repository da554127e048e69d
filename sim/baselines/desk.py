"""One decision in the making: slots, memory and queues as they are after what has been decided so far."""

from collections import defaultdict
from collections.abc import Iterable

from mesh.facts import ReplicaState
from policy.actions import Load, LoadReason, Place, RefusalReason, Refuse, Unload, UnloadReason
from policy.view import Spot
from sim.baselines.startup import Queue, load_s, parts, queue
from sim.policy import Action, ClusterState, Resident, WaitingRequest, WorkerState, spot


class Desk:
    """Made for each decision. `actions` are in the order in which they can be done."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self.models = dict(state.models)
        self.workers = {worker.id: worker for worker in state.workers()}
        self.nodes = {node.id: node for node in state.nodes}
        self.actions: list[Action] = []
        self._free = {worker.id: worker.free_bytes for worker in self.workers.values()}
        self._leaving: defaultdict[str, int] = defaultdict(int)
        self._unused: defaultdict[str, int] = defaultdict(int)  # bytes of replicas that may be unloaded, by worker
        self._by_model: defaultdict[str, list[Resident]] = defaultdict(list)
        self._open: dict[Spot, int] = {}
        self._joinable: defaultdict[str, int] = defaultdict(int)  # slots of loads, by model
        self._there: set[tuple[str, str]] = set()  # worker and model
        self._queues: dict[str, Queue] = {}
        self.changes = 0  # of slots and memory, by what has been decided
        for resident in state.residents():
            self._know(resident)

    def _know(self, one: Resident) -> None:
        self._there.add((one.spot.worker_id, one.spot.model))
        if one.state is ReplicaState.READY:
            self._by_model[one.spot.model].append(one)
            self._open[one.spot] = one.open_slots
            self._unused[one.spot.worker_id] += one.bytes if self.unused(one) else 0
        elif one.state is ReplicaState.LOADING:
            self._joinable[one.spot.model] += one.slots
        else:
            self._leaving[one.spot.worker_id] += one.bytes

    def ready(self, model: str) -> list[Resident]:
        """Replicas that answer, full ones included."""
        return [one for one in self._by_model[model] if one.spot in self._open]

    def open_slots(self, resident: Resident) -> int:
        """Of a replica; 0 when it is to go."""
        return self._open.get(resident.spot, 0)

    def open(self, model: str) -> list[Resident]:
        """Replicas with a slot."""
        return [one for one in self._by_model[model] if self.open_slots(one) > 0]

    def busy(self, worker: WorkerState) -> int:
        """Requests on a worker."""
        return sum(one.slots - self._open.get(one.spot, one.slots) for one in worker.residents)

    def place(self, request: WaitingRequest, resident: Resident) -> None:
        """A request takes a slot."""
        self.take(resident)
        self.actions.append(Place(request.id, resident.spot))

    def take(self, resident: Resident) -> None:
        """A request on its way there has a slot."""
        self.changes += 1
        self._unused[resident.spot.worker_id] -= resident.bytes if self.unused(resident) else 0
        self._open[resident.spot] -= 1

    def refuse(self, request: WaitingRequest) -> None:
        """Nobody has heard of its model."""
        self.actions.append(Refuse(request.id, RefusalReason.UNKNOWN_MODEL, None))

    def join(self, model: str) -> bool:
        """Whether a load under way will have a slot for one more, which is then taken."""
        if self._joinable[model] < 1:
            return False
        self._joinable[model] -= 1
        return True

    def close(self, resident: Resident) -> None:
        """No request goes there any more."""
        self.changes += 1
        self._unused[resident.spot.worker_id] -= resident.bytes if self.unused(resident) else 0
        self._open.pop(resident.spot, None)

    def need_bytes(self, worker: WorkerState, model: str) -> int:
        """Memory that a replica takes there."""
        return self.models[model].bytes + worker.kv_bytes

    def elsewhere(self, model: str) -> list[WorkerState]:
        """Workers that have no replica of a model, and are large enough for one."""
        able = (worker for worker in self.workers.values() if (worker.id, model) not in self._there)
        return [worker for worker in able if self.need_bytes(worker, model) <= worker.memory_bytes]

    def fits(self, worker: WorkerState, model: str) -> bool:
        """Whether its memory is free now."""
        return self._free[worker.id] >= self.need_bytes(worker, model)

    def free_bytes(self, worker: WorkerState) -> int:
        """Memory that nothing has or is to have."""
        return self._free[worker.id]

    def room_comes(self, worker: WorkerState, model: str) -> bool:
        """Whether it will be free when those have gone that are leaving."""
        return self._free[worker.id] + self._leaving[worker.id] >= self.need_bytes(worker, model)

    def can_start(self, worker: WorkerState, model: str) -> bool:
        """Whether a load can begin there now, or when those have gone that are leaving or idle."""
        room = self._free[worker.id] + self._leaving[worker.id] + self._unused[worker.id]
        return room >= self.need_bytes(worker, model)

    def trouble(self, worker: WorkerState, model: str) -> int:
        """What stands before a load there: nothing, replicas that are leaving, or such as have to be unloaded."""
        return 0 if self.fits(worker, model) else 1 if self.room_comes(worker, model) else 2

    def unused(self, resident: Resident) -> bool:
        """Whether a replica answers, and has no request, nor is to go."""
        return self._open.get(resident.spot) == resident.slots

    def untouched(self, resident: Resident) -> bool:
        """Whether a replica answers, and nothing has been decided of it so far."""
        return self._open.get(resident.spot) == resident.open_slots

    def idle(self, worker: WorkerState) -> list[Resident]:
        """Replicas there that may be unloaded, those first that nobody has used for longest."""
        unused = [one for one in worker.residents if self.unused(one)]
        return sorted(unused, key=lambda one: (one.idle_since_s or 0.0, one.spot))

    def missing_bytes(self, worker: WorkerState, model: str) -> int:
        """That something has to be unloaded for."""
        return self.need_bytes(worker, model) - self._free[worker.id] - self._leaving[worker.id]

    def evictions(self, worker: WorkerState, model: str) -> list[Resident]:
        """Idle replicas that make enough room, longest unused first; empty if all of them are too little."""
        return just_enough(self.idle(worker), self.missing_bytes(worker, model))

    def queue(self, node_id: str) -> Queue:
        """Of a node's disk and network."""
        if node_id not in self._queues:
            self._queues[node_id] = queue(self.nodes[node_id], self.models)
        return self._queues[node_id]

    def load_s(self, worker: WorkerState, model: str) -> float:
        """Seconds that a load there would take."""
        return load_s(self.nodes[worker.node_id], self.models[model], self.queue(worker.node_id))

    def load(self, worker: WorkerState, model: str, reason: LoadReason = LoadReason.DEMAND) -> None:
        """Begins a load, whose slots can be joined."""
        self.actions.append(Load(spot(worker.id, model), self.nodes[worker.node_id].store_id, reason=reason))
        self.expect(worker, model)

    def expect(self, worker: WorkerState, model: str) -> None:
        """Keeps memory, slots and a place in the queue for a load that begins now or when its room has come."""
        node = self.nodes[worker.node_id]
        self.changes += 1
        self._queues[node.id] = self.queue(node.id).then(node, parts(node, self.models[model]))
        self._free[worker.id] -= self.need_bytes(worker, model)
        self._there.add((worker.id, model))
        self._joinable[model] += worker.slots

    def unload(self, residents: Iterable[Resident], reason: UnloadReason = UnloadReason.EVICTED) -> None:
        """Ends replicas that nobody uses."""
        for one in residents:
            self.close(one)
            self._leaving[one.spot.worker_id] += one.bytes
            self.actions.append(Unload(one.spot, reason))


def just_enough(residents: Iterable[Resident], missing_bytes: int) -> list[Resident]:
    """The first of them whose bytes make up for what is missing; empty if all are too little."""
    chosen: list[Resident] = []
    for one in residents:
        if missing_bytes <= 0:
            break
        chosen.append(one)
        missing_bytes -= one.bytes
    return [] if missing_bytes > 0 else chosen
