"""One load: bytes from each tier in turn, nearest first, then what is not bytes. It keeps in DRAM and on disk what it
brings, where there is room; what finds none goes through all the same."""

import math
from collections.abc import Callable

from sim.engine import Engine, Event
from sim.nodes import Replica, Worker
from sim.traffic import Flow, Resource


class LoadRun:
    """Begins at once, and calls `came` when all of its bytes are there and `done` when the replica can serve, unless it
    is ended before."""

    def __init__(
        self, engine: Engine, worker: Worker, replica: Replica, came: Callable[[], None], done: Callable[[], None]
    ) -> None:
        self._engine, self._node, self._model = engine, worker.node, replica.model
        self._came, self._done = came, done
        self.began_s = engine.now_s
        self._flow: Flow | None = None
        self._init: Event | None = None
        self._stages = _stages(worker, replica)
        for pool in self._node.pools:
            pool.pin(self._model.name, self.began_s)
            pool.book(self._model.name, self._model.bytes)
        self._next()

    @property
    def left_bytes(self) -> float:
        """Those still to come."""
        return self._behind_bytes + (self._node.traffic.left_bytes(self._flow) if self._flow else 0.0)

    @property
    def ready_at_s(self) -> float:
        """An estimate: the rest at the present rate."""
        if self._init:
            return self._init.at_s
        if self._flow is None:
            return math.inf
        return self._node.traffic.ends_at_s(self._flow, self._behind_bytes) + self._model.init_s

    @property
    def _behind_bytes(self) -> float:
        """Of the tiers whose turn has not come."""
        return sum(size for size, _ in self._stages)

    def end(self) -> None:
        """It stops where it is."""
        if self._flow:
            self._node.traffic.end(self._flow)
        if self._init:
            self._init.cancel()
        self._release()

    def _next(self) -> None:
        self._flow = None
        if self._stages:
            size, through = self._stages.pop(0)
            self._flow = self._node.traffic.begin(size, through, self._next)
            return
        for pool in self._node.pools:
            pool.came(self._model.name)
        self._init = self._engine.after(self._model.init_s, self._ready)
        self._came()

    def _ready(self) -> None:
        self._release()
        self._done()

    def _release(self) -> None:
        for pool in self._node.pools:
            pool.unpin(self._model.name)


def _stages(worker: Worker, replica: Replica) -> list[tuple[float, tuple[Resource, ...]]]:
    """Bytes of each tier, and what they pass through. The nearer tier's bytes lie in the farther, too."""
    node, bus, name, size = worker.node, worker.bus, replica.model.name, replica.model.bytes
    dram = min(size, node.dram_pool.held.get(name, 0))
    disk = max(0, min(size, node.disk_pool.held.get(name, 0)) - dram)
    stages: list[tuple[float, tuple[Resource, ...]]]
    stages = [(dram, (bus,)), (disk, (node.disk, bus)), (size - dram - disk, (node.network, bus))]
    return [stage for stage in stages if stage[0]]
