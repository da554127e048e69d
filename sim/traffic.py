"""Bytes on their way through shared resources. Each flow gets its max-min fair share of all that it passes through."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sim.engine import Engine, Event

ENOUGH_BYTES = 1e-3  # what rounding may leave of a flow whose end has come


@dataclass(eq=False, slots=True)
class Resource:
    """A disk, a network card, a device's bus. `moved_bytes` counts all that went through it."""

    name: str
    bytes_per_s: float
    moved_bytes: float = 0.0


@dataclass(eq=False, slots=True)
class Flow:
    """So many bytes through these resources at once: the narrowest share decides. `behind`: after all that are not."""

    left_bytes: float
    through: tuple[Resource, ...]
    done: Callable[[], None]
    behind: bool = False
    bytes_per_s: float = field(default=0.0)


class Traffic:
    """All flows that may meet: those of one node."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._flows: list[Flow] = []
        self._since_s = 0.0
        self._next: Event | None = None
        self.changes = 0  # of anybody's rate

    def left_bytes(self, flow: Flow) -> float:
        """Of a flow, now."""
        return max(0.0, flow.left_bytes - flow.bytes_per_s * (self._engine.now_s - self._since_s))

    def ends_at_s(self, flow: Flow, more_bytes: float) -> float:
        """When it and so many bytes behind it would be through, were its rate to stay."""
        left_bytes = flow.left_bytes + more_bytes
        return self._since_s + left_bytes / flow.bytes_per_s if flow.bytes_per_s else math.inf

    def begin(
        self, size_bytes: float, through: tuple[Resource, ...], done: Callable[[], None], *, behind: bool = False
    ) -> Flow:
        """Calls `done` when the bytes are through."""
        self._advance()
        flow = Flow(size_bytes, through, done, behind)
        self._flows.append(flow)
        self._share()
        return flow

    def end(self, flow: Flow) -> None:
        """It goes no further, and is never done."""
        self._advance()
        self._flows.remove(flow)
        self._share()

    def slow(self, resource: Resource, bytes_per_s: float) -> None:
        """From now on the resource is so fast."""
        self._advance()
        resource.bytes_per_s = bytes_per_s
        self._share()

    def _advance(self) -> None:
        passed_s = self._engine.now_s - self._since_s
        self._since_s = self._engine.now_s
        for flow in self._flows:
            moved = min(flow.left_bytes, flow.bytes_per_s * passed_s)
            flow.left_bytes -= moved
            for resource in flow.through:
                resource.moved_bytes += moved

    def _share(self) -> None:
        """New rates, and the moment of the next end."""
        self.changes += 1
        for flow, rate in fair_shares(self._flows):
            flow.bytes_per_s = rate
        if self._next:
            self._next.cancel()
        ends = [flow.left_bytes / flow.bytes_per_s for flow in self._flows if flow.bytes_per_s > 0.0]
        self._next = self._engine.after(min(ends), self._finish) if ends else None

    def _finish(self) -> None:
        self._advance()
        finished = [flow for flow in self._flows if flow.left_bytes <= ENOUGH_BYTES + 1e-9 * flow.bytes_per_s]
        self._flows = [flow for flow in self._flows if flow not in finished]
        self._share()
        for flow in finished:
            flow.done()


def fair_shares(flows: Iterable[Flow]) -> list[tuple[Flow, float]]:
    """Max-min fair rates in bytes a second, by progressive filling: the resource with the least for each of its flows
    settles these; what they leave elsewhere is shared by the others. Those behind share what all others have left."""
    shares, all_ = list[tuple[Flow, float]](), list(flows)
    left = {resource: resource.bytes_per_s for flow in all_ for resource in flow.through}
    _fill([flow for flow in all_ if not flow.behind], left, shares)
    _fill([flow for flow in all_ if flow.behind], left, shares)
    return shares


def _fill(open_: list[Flow], left: dict[Resource, float], shares: list[tuple[Flow, float]]) -> None:
    while open_:
        counts = dict.fromkeys(left, 0)
        for flow in open_:
            for resource in flow.through:
                counts[resource] += 1
        share, tight = min(((left[r] / n, r) for r, n in counts.items() if n), key=lambda pair: pair[0])
        for flow in [flow for flow in open_ if tight in flow.through]:
            shares.append((flow, max(0.0, share)))
            open_.remove(flow)
            for resource in flow.through:
                left[resource] -= share
