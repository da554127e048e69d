"""The simulated cluster: carries out loads and unloads, and loses what fails. It decides nothing."""

from collections.abc import Callable, Iterable

from mesh.facts import Kind, ReplicaState
from policy.copying import Copy
from policy.view import Spot
from sim.batch import Sequence
from sim.engine import Engine
from sim.loads import LoadRun
from sim.nodes import Node, Replica, Worker
from sim.outcome import LoadDone
from sim.prefetches import PrefetchRun
from sim.spec import ClusterSpec


class Impossible(Exception):
    """A policy has asked for what cannot be: its fault, never the workload's."""


class Cluster:
    """`wake` is called whenever a load has all its bytes or is done, an unload is, a slot opens, or a worker comes or
    goes."""

    def __init__(self, engine: Engine, spec: ClusterSpec, wake: Callable[[], None]) -> None:
        self._engine, self._wake = engine, wake
        self.models = {model.name: model for model in spec.models}
        self.nodes = {f"n{i}": Node(engine, f"n{i}", spec.node) for i in range(spec.nodes)}
        self.workers = {worker.id: worker for node in self.nodes.values() for worker in node.workers}
        self.all_workers = list(self.workers.values())  # that have ever been
        self.loads: dict[Spot, LoadRun] = {}
        self.prefetches: dict[Copy, PrefetchRun] = {}
        self.finished: list[LoadDone] = []
        self.drains: frozenset[str] = frozenset()  # "worker/<id>" of those that are to become empty
        lay_out(spec, list(self.nodes.values()))

    def replica(self, spot: Spot) -> Replica:
        """What is there. Impossible if nothing is."""
        worker = self.workers.get(spot.worker_id)
        if worker is None or spot not in worker.replicas:
            raise Impossible(f"no replica at {spot}")
        return worker.replicas[spot]

    def load(self, spot: Spot, store_id: str) -> None:
        """Begins a load. Impossible without a worker, a model or room, or where the model is already."""
        worker, model = self.workers.get(spot.worker_id), self.models.get(spot.model)
        if worker is None or model is None or worker.node.store_id != store_id:
            raise Impossible(f"no worker, model or store for {spot} from {store_id!r}")
        if spot in worker.replicas or worker.free_bytes < model.bytes + worker.kv_bytes:
            raise Impossible(f"no room for {spot}: {worker.free_bytes} bytes are free")
        for copy in [copy for copy in self.prefetches if (copy.store_id, copy.digest) == (store_id, model.name)]:
            self.prefetches.pop(copy).end()  # from now on a request waits for these bytes
        replica = worker.replica(spot, model)
        self.loads[spot] = LoadRun(self._engine, worker, replica, self._wake, lambda: self._loaded(worker, replica))

    def unload(self, spot: Spot) -> None:
        """Begins to end an idle replica, or ends a load. Impossible while requests are there."""
        replica, worker = self.replica(spot), self.workers[spot.worker_id]
        if replica.running or replica.state is ReplicaState.DRAINING:
            raise Impossible(f"{spot} is in use or about to go")
        if load := self.loads.pop(spot, None):
            load.end()
        else:
            worker.device.remove(replica.batch)
        replica.state = ReplicaState.DRAINING
        worker.touch()
        self._engine.after(worker.node.spec.unload_s, lambda: self._unloaded(worker, replica))

    def prefetch(self, copy: Copy, instead: Iterable[str] = ()) -> None:
        """Begins to bring a model up to a tier, behind all loads, others having left it. Impossible without a node or a
        model, or twice."""
        node = next((node for node in self.nodes.values() if node.store_id == copy.store_id), None)
        model = self.models.get(copy.digest)
        if node is None or model is None or copy in self.prefetches:
            raise Impossible(f"no store or model for {copy}, or it is on its way already")
        for other in instead:
            node.pool(copy.tier).drop(other)
        self.prefetches[copy] = run = PrefetchRun(node, model, copy.tier, lambda: self._prefetched(copy))
        run.begin(self._engine.now_s)

    def join(self, replica: Replica, sequence: Sequence) -> None:
        """A sequence takes a slot. Impossible where none is open."""
        self._take_slot(replica, sequence)
        self.workers[replica.spot.worker_id].device.join(replica.batch, sequence)

    def expect(self, replica: Replica, sequence: Sequence) -> None:
        """A sequence takes a slot, and nothing runs for it yet: its KV is on its way. Impossible where none is open."""
        self._take_slot(replica, sequence)
        replica.coming.add(sequence.id)

    def leave(self, replica: Replica, sequence: Sequence) -> None:
        """A sequence stops, with the tokens that it has then."""
        if sequence.id not in replica.coming:
            self.workers[replica.spot.worker_id].device.leave(replica.batch, sequence)
        self.left(replica, sequence)

    def left(self, replica: Replica, sequence: Sequence) -> None:
        """A sequence is over, and its slot is open again."""
        del replica.running[sequence.id]
        replica.coming.discard(sequence.id)
        self.workers[replica.spot.worker_id].touch()
        if not replica.running:
            replica.idle_since_s = self._engine.now_s
        self._wake()

    def tokens(self, replica: Replica) -> dict[Sequence, int]:
        """How many each sequence of a replica has by now."""
        return self.workers[replica.spot.worker_id].device.tokens(replica.batch)

    def crash(self, worker: Worker) -> list[Sequence]:
        """A worker is gone with all that it held: returns what ran there, each with the tokens that it had."""
        lost = self.empty(worker)
        for spot in worker.replicas:
            if load := self.loads.pop(spot, None):
                load.end()
        worker.forget(list(worker.replicas))
        worker.node.workers.remove(worker)
        del self.workers[worker.id]
        self._wake()
        return lost

    def empty(self, worker: Worker) -> list[Sequence]:
        """Stops all that runs on a worker: returns it, each with the tokens that it had."""
        lost = [(replica, one) for replica in worker.replicas.values() for one in replica.running.values()]
        for replica, sequence in lost:
            self.leave(replica, sequence)
        return [sequence for _, sequence in lost]

    def restart(self, worker_id: str, node: Node) -> None:
        """A worker comes again, with nothing loaded."""
        worker = Worker(self._engine, worker_id, node, node.spec)
        self.all_workers.append(worker)
        node.workers = sorted([*node.workers, worker], key=lambda one: one.id)
        worker.touch()
        if node.id in self.nodes:
            self.workers[worker_id] = worker
            self._wake()

    def drain(self, worker_id: str) -> None:
        """It is to become empty: whoever decides sees to that."""
        self.drains |= {f"{Kind.WORKER}/{worker_id}"}
        self._wake()

    def hide(self, node: Node) -> None:
        """Nobody sees the node any more, nor waits for what it prefetches."""
        for copy in [copy for copy in self.prefetches if copy.store_id == node.store_id]:
            self.prefetches.pop(copy).end()
        del self.nodes[node.id]
        self.workers = {worker.id: worker for other in self.nodes.values() for worker in other.workers}
        self._wake()

    def show(self, node: Node) -> None:
        """It is seen again, with what it has by now."""
        self.nodes = dict(sorted([*self.nodes.items(), (node.id, node)]))
        self.workers = {worker.id: worker for other in self.nodes.values() for worker in other.workers}
        self._wake()

    def _take_slot(self, replica: Replica, sequence: Sequence) -> None:
        if replica.open_slots < 1:
            raise Impossible(f"no slot is open at {replica.spot}")
        replica.running[sequence.id] = sequence
        replica.idle_since_s = None
        self.workers[replica.spot.worker_id].touch()

    def _loaded(self, worker: Worker, replica: Replica) -> None:
        load = self.loads.pop(replica.spot)
        replica.state = ReplicaState.READY
        worker.touch()
        replica.idle_since_s = self._engine.now_s
        self.finished.append(LoadDone(worker.id, replica.model.name, load.began_s, self._engine.now_s))
        worker.device.add(replica.batch)
        self._wake()

    def _prefetched(self, copy: Copy) -> None:
        del self.prefetches[copy]
        self._wake()

    def _unloaded(self, worker: Worker, replica: Replica) -> None:
        if worker.replicas.get(replica.spot) is replica:  # a crash may have been quicker
            worker.forget([replica.spot])
            self._wake()


def lay_out(spec: ClusterSpec, nodes: list[Node]) -> None:
    """Puts each model's copies on the disks of the nodes whose turn it is, until these are full; an origin has all."""
    turn = 0
    for model in spec.models:
        for _ in range(min(spec.copies, len(nodes))):
            nodes[turn % len(nodes)].disk_pool.put(model.name, model.bytes)
            turn += 1
