"""Requests beyond those that a tenant may have at once: the last to come are turned away, even where there is room."""

from policy.actions import RefusalReason
from policy.estimate import Work, estimate
from policy.knobs import Knobs
from policy.placement import Choice, refusal
from policy.view import View, Waiting
from policy.waits import slot_wait

NONE: frozenset[str] = frozenset()


def beyond(view: View, knobs: Knobs) -> frozenset[str]:
    """Of each tenant the newest, as many as it has too many. An answer that has begun is let go on."""
    most = knobs.tenant_requests
    if most is None:
        return NONE
    over = {one: view.shares.requests(one) - most for one in view.shares.waiting if view.shares.requests(one) > most}
    if not over:
        return NONE
    found = set[str]()
    for request in sorted(view.queues, key=view.queues.rank, reverse=True):
        if over.get(request.tenant, 0) > 0 and not request.digest:
            over[request.tenant] -= 1
            found.add(request.request_id)
    return frozenset(found)


def over_quota(view: View, request: Waiting, knobs: Knobs) -> Choice:
    """Turns one away, until the first of its tenant's others is thought to have ended."""
    ends = slot_wait(view.rates, request.model, 0, view.shares.requests(request.tenant), knobs)
    return refusal(request, RefusalReason.TENANT_FULL, estimate(Work(device=(ends,)), view.rates).p90_s)
