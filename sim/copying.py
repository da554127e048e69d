"""A running request's KV on its way to another worker."""

from collections.abc import Callable

from sim.nodes import Worker


class KvCopy:
    """Begins at once, and calls `done` when all of it is there, unless it is ended before. Between nodes it shares the
    network of the one that it comes to with what is loaded there; within one, the bus of its device."""

    def __init__(self, source: Worker, target: Worker, size_bytes: float, done: Callable[[], None]) -> None:
        through = target.bus if source.node is target.node else target.node.network
        self._traffic = target.node.traffic
        self._flow = self._traffic.begin(size_bytes, (through,), done)

    def end(self) -> None:
        """It goes no further."""
        self._traffic.end(self._flow)
