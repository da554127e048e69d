"""One prefetch: bytes up to a tier, behind all loads. Where it is ended, what has come stays."""

import math
from collections.abc import Callable

from mesh.facts import Tier
from sim.nodes import Node
from sim.spec import ModelSpec
from sim.traffic import Flow, Resource


class PrefetchRun:
    """Begins at once, and calls `done` when the tier has all of it, unless it is ended before; or when there is no room
    for it, at once."""

    def __init__(self, node: Node, model: ModelSpec, tier: Tier, done: Callable[[], None]) -> None:
        self._node, self._model, self._done = node, model, done
        self._pools = node.pools if tier is Tier.DRAM else (node.disk_pool,)
        self._flow: Flow | None = None
        self._stages = _stages(node, model, tier)

    def begin(self, now: float) -> None:
        """Books room, and begins to read."""
        for pool in self._pools:
            pool.pin(self._model.name, now)
        if not self._pools[0].book(self._model.name, self._model.bytes):
            self._release()
            self._done()
            return
        for pool in self._pools[1:]:
            pool.book(self._model.name, self._model.bytes)
        self._next()

    def end(self) -> None:
        """It stops where it is."""
        if self._flow:
            self._node.traffic.end(self._flow)
            left_bytes = math.ceil(self._flow.left_bytes + sum(size for size, _ in self._stages))
            for pool in self._pools:
                pool.came(self._model.name, left_bytes)
        self._release()

    def _next(self) -> None:
        self._flow = None
        if self._stages:
            size, through = self._stages.pop(0)
            self._flow = self._node.traffic.begin(size, through, self._next, behind=True)
            return
        for pool in self._pools:
            pool.came(self._model.name)
        self._release()
        self._done()

    def _release(self) -> None:
        for pool in self._pools:
            pool.unpin(self._model.name)


def _stages(node: Node, model: ModelSpec, tier: Tier) -> list[tuple[float, tuple[Resource, ...]]]:
    """Bytes that the tier lacks, and what they pass through. The nearer tier's bytes lie in the farther, too."""
    size, name = model.bytes, model.name
    dram = min(size, node.dram_pool.held.get(name, 0)) if tier is Tier.DRAM else 0
    disk = max(dram, min(size, node.disk_pool.held.get(name, 0)))
    stages: list[tuple[float, tuple[Resource, ...]]] = [(size - disk, (node.network,))]
    if tier is Tier.DRAM:
        stages.insert(0, (disk - dram, (node.disk,)))
    return [stage for stage in stages if stage[0]]
