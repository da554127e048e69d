"""In what order requests are served: by band, whoever finds a slot first, by what their tenants have had, by deadline,
by arrival."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from policy.knobs import Knobs
from policy.shares import Shares
from policy.view import Waiting

Rank = tuple[float, int]
Key = tuple[int, bool, int, float, Rank]


@dataclass(slots=True)
class Flow:
    """What one tenant asks of one model in one band, the most urgent first."""

    model: str
    tenant: str
    level: int
    requests: deque[Waiting]


class Order:
    """Strict bands; in each, first whoever is `ready`: a slot that is there costs nobody memory, and a replica that
    somebody waits for must not leave, as an idle one, before they have it. Then a deficit round-robin over the tenants,
    with a quantum of `quantum_s` device-seconds; in a round, the earliest deadline, whosever it is. What is served
    counts at once, what is blocked costs its tenant nothing, and no flow waits for another."""

    def __init__(
        self,
        shares: Shares,
        rank: Callable[[Waiting], Rank],
        now: float,
        knobs: Knobs,
        ready: Callable[[Waiting], bool] = lambda _: False,
    ) -> None:
        self._shares, self._rank, self._now, self._knobs, self._ready = shares, rank, now, knobs, ready
        self._tags_s: dict[str, float] = {}
        self._only: Flow | None = None  # among one, which is the usual case, there is no order to find
        self._heap: list[tuple[Key, Flow]] = []

    def add(self, requests: Iterable[Waiting]) -> None:
        """Those who wait for one model, in order of arrival."""
        flows: dict[tuple[str, int], Flow] = {}
        for request in requests:
            level = band(request, self._now, self._knobs)
            flow = flows.get((request.tenant, level))
            if flow is None:
                flow = flows[request.tenant, level] = Flow(request.model, request.tenant, level, deque())
            flow.requests.append(request)
        for flow in flows.values():
            if any(request.deadline_s is not None for request in flow.requests):
                flow.requests = deque(sorted(flow.requests, key=_deadline_s))
            self.put(flow)

    def put(self, flow: Flow) -> None:
        """Its next request waits for its turn."""
        if self._only is None and not self._heap:
            self._only = flow
            return
        if self._only is not None:
            only, self._only = self._only, None
            self._push(only)
        self._push(flow)

    def next(self) -> Flow | None:
        """The flow whose first request is to be looked at now; None when all have been."""
        if self._only is not None:
            only, self._only = self._only, None
            return only
        while self._heap:
            key, flow = heapq.heappop(self._heap)
            if not self._heap or key == self._key(flow):
                return flow
            self._push(flow)  # its tenant has been served meanwhile, or its slot taken
        return None

    def served(self, tenant: str, kind: str) -> None:
        """Something is done for a tenant, and will be charged to it: a request to a model is placed, or a load."""
        self._tags_s[tenant] = self._tag_s(tenant) + self._shares.cost_s(kind) / self._shares.weight(tenant)

    def _push(self, flow: Flow) -> None:
        heapq.heappush(self._heap, (self._key(flow), flow))

    def _tag_s(self, tenant: str) -> float:
        return self._tags_s.get(tenant, self._shares.tag_s(tenant))

    def _key(self, flow: Flow) -> Key:
        first = flow.requests[0]
        turn = int(self._tag_s(flow.tenant) // self._knobs.quantum_s)
        return -flow.level, not self._ready(first), turn, _deadline_s(first), self._rank(first)


def band(request: Waiting, now: float, knobs: Knobs) -> int:
    """The request's priority, and one more for each `ageing_s` that it has waited: so nobody waits forever."""
    return request.priority + int(max(0.0, now - request.since_s) // knobs.ageing_s)


def next_band_s(request: Waiting, now: float, knobs: Knobs) -> float:
    """The moment at which that is next so."""
    aged = int(max(0.0, now - request.since_s) // knobs.ageing_s)
    return request.since_s + (aged + 1) * knobs.ageing_s


def _deadline_s(request: Waiting) -> float:
    return math.inf if request.deadline_s is None else request.deadline_s
