"""What breaks or is taken away, when, and for how long. Requests that ran where something broke wait again, with their
tokens."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from sim.cluster import Cluster
from sim.engine import Engine
from sim.nodes import Node, Worker
from sim.seating import Seating


@dataclass(frozen=True, slots=True)
class WorkerCrash:
    """A worker dies with its replicas, and another takes its place `down_s` later."""

    at_s: float
    worker_id: str
    down_s: float

    def strike(self, engine: Engine, cluster: Cluster, seating: Seating) -> None:
        """At `at_s`. Nothing happens to a worker that is down already."""
        if worker := cluster.workers.get(self.worker_id):
            _crash([worker], engine, cluster, seating, self.down_s)


@dataclass(frozen=True, slots=True)
class NodeCrash:
    """A machine dies with all its workers, and comes back `down_s` later with what is on its disk."""

    at_s: float
    node_id: str
    down_s: float

    def strike(self, engine: Engine, cluster: Cluster, seating: Seating) -> None:
        """At `at_s`. Nothing happens to a node that is away already."""
        if node := cluster.nodes.get(self.node_id):
            _crash(list(node.workers), engine, cluster, seating, self.down_s)
            node.dram_pool.clear()
            cluster.hide(node)
            engine.after(self.down_s, partial(cluster.show, node))


@dataclass(frozen=True, slots=True)
class Partition:
    """Nobody reaches a machine for `lasts_s`. Its loads go on, and what is loaded stays; its requests go elsewhere."""

    at_s: float
    node_id: str
    lasts_s: float

    def strike(self, engine: Engine, cluster: Cluster, seating: Seating) -> None:
        """At `at_s`. Nothing happens to a node that is away already."""
        if node := cluster.nodes.get(self.node_id):
            lost = [sequence for worker in node.workers for sequence in cluster.empty(worker)]
            cluster.hide(node)
            seating.lose(lost)
            engine.after(self.lasts_s, partial(cluster.show, node))


@dataclass(frozen=True, slots=True)
class SlowDisk:
    """A disk gives only a share of its rate, for `lasts_s`."""

    at_s: float
    node_id: str
    share: float
    lasts_s: float

    def strike(self, engine: Engine, cluster: Cluster, seating: Seating) -> None:
        """At `at_s`. Nothing happens to a node that is away."""
        if node := cluster.nodes.get(self.node_id):
            node.traffic.slow(node.disk, self.share * node.spec.disk_bytes_per_s)
            engine.after(self.lasts_s, partial(_mend, node))


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator wants a worker empty, for good."""

    at_s: float
    worker_id: str

    def strike(self, _: Engine, cluster: Cluster, __: Seating) -> None:
        """At `at_s`."""
        cluster.drain(self.worker_id)


Failure = WorkerCrash | NodeCrash | Partition | SlowDisk | Drain


def _mend(node: Node) -> None:
    node.traffic.slow(node.disk, node.spec.disk_bytes_per_s)


def _crash(workers: Iterable[Worker], engine: Engine, cluster: Cluster, seating: Seating, down_s: float) -> None:
    lost = []
    for worker in workers:
        lost += cluster.crash(worker)
        engine.after(down_s, partial(cluster.restart, worker.id, worker.node))
    seating.lose(lost)
