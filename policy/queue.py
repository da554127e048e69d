"""In what order requests are served: by band, by what their tenants have had, by deadline, by arrival."""

import math
from collections import defaultdict
from collections.abc import Sequence

from policy.knobs import Knobs
from policy.shares import Shares
from policy.view import Waiting


def in_order(waiting: Sequence[Waiting], shares: Shares, now: float, knobs: Knobs) -> Sequence[Waiting]:
    """The requests, the first to be served first. They come in order of arrival.

    Each tenant of a band has its requests sorted by deadline; the rounds in which a deficit round-robin with a quantum
    of `quantum_s` device-seconds would serve them come one after the other, and within a round the earliest deadline,
    whosever it is.
    """
    if _alike(waiting):
        return waiting
    tags_s: dict[str, float] = {}
    keyed: list[tuple[tuple[int, int, float, float], int, Waiting]] = []
    for level, tenant, requests in _flows(waiting, now, knobs):
        tag_s = tags_s.get(tenant, shares.tag_s(tenant))
        for request in requests:
            keyed.append(((-level, int(tag_s // knobs.quantum_s), *_urgency(request)), len(keyed), request))
            tag_s += shares.cost_s(request.model) / shares.weight(tenant)
        tags_s[tenant] = tag_s
    return [request for _, _, request in sorted(keyed)]


def band(request: Waiting, now: float, knobs: Knobs) -> int:
    """The request's priority, and one more for each `ageing_s` that it has waited: so nobody waits forever."""
    return request.priority + int(max(0.0, now - request.since_s) // knobs.ageing_s)


def _flows(waiting: Sequence[Waiting], now: float, knobs: Knobs) -> list[tuple[int, str, list[Waiting]]]:
    """By band, the highest first, and tenant: its requests, the most urgent first."""
    flows = defaultdict[tuple[int, str], list[Waiting]](list)
    for request in waiting:
        flows[band(request, now, knobs), request.tenant].append(request)
    ordered = sorted(flows.items(), key=lambda flow: (-flow[0][0], flow[0][1]))
    return [(level, tenant, sorted(requests, key=_urgency)) for (level, tenant), requests in ordered]


def _urgency(request: Waiting) -> tuple[float, float]:
    deadline_s = math.inf if request.deadline_s is None else request.deadline_s
    return deadline_s, request.since_s


def _alike(waiting: Sequence[Waiting]) -> bool:
    """Whether nothing but arrival tells them apart: the older is of no lower band."""
    kinds = {(request.tenant, request.priority, request.deadline_s) for request in waiting}
    return len(kinds) < 2
