"""Waiting requests, in order of service: those that may fare otherwise than when they were last looked at."""

import heapq
from collections import deque

from policy.actions import RefusalReason
from policy.candidates import least_need_bytes
from policy.draft import Draft
from policy.knobs import Knobs
from policy.placement import place, turn_away
from policy.view import View, Waiting


class Line:
    """The requests of one model. Once one has found nothing, others like it will find nothing either."""

    def __init__(self, view: View, model: str, *, hopeful: bool) -> None:
        self.model = model
        self.hopeful = hopeful  # looked at only because there is more room somewhere
        self.requests = deque(view.queues.of(model))
        self.held = 0
        self.blocked = False


def dispatch(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Places, loads for, makes room for or turns away the requests that wait. Returns when to look at them again."""
    view = draft.view
    due = frozenset(view.queues.since.look(now, knobs.hold_s).due)
    lines = {model: Line(view, model, hopeful=False) for model in _touched(view, due)}
    lines |= {model: Line(view, model, hopeful=True) for model in _hopeful(view) if model not in lines}
    heads = [(view.queues.rank(line.requests[0]), model) for model, line in lines.items()]
    heapq.heapify(heads)
    while heads:
        line = lines[heapq.heappop(heads)[1]]
        if line.hopeful and not _may_find_room(view, line.model):
            continue
        request = line.requests.popleft()
        if line.blocked and not request.odd and request.request_id not in due and line.held < knobs.max_waiting:
            line.held += 1  # like one that has just found nothing
        else:
            _serve(draft, line, request, now, knobs)
        if line.requests and not _is_settled(view, line, due, knobs):
            heapq.heappush(heads, (view.queues.rank(line.requests[0]), line.model))
    return _moments(draft, now, knobs)


def _serve(draft: Draft, line: Line, request: Waiting, now: float, knobs: Knobs) -> None:
    """Looks at one request."""
    if line.held < knobs.max_waiting:
        choice = place(draft.view, request, now, knobs)
    else:
        choice = turn_away(draft.view, request, RefusalReason.QUEUE_FULL, knobs.distrust_s)
    draft.take(choice.actions)
    draft.claim(choice.claims)
    if not choice.ends:
        line.held += 1
        line.blocked |= not request.odd


def _is_settled(view: View, line: Line, due: frozenset[str], knobs: Knobs) -> bool:
    """Whether what is left of a line can only wait."""
    all_wait = line.blocked and not view.queues.odd[line.model]
    if not all_wait or line.held + len(line.requests) > knobs.max_waiting:
        return False
    return not due or due.isdisjoint(request.request_id for request in line.requests)


def _moments(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """When the next of those that wait will have waited long enough, and when a worker is trusted again."""
    view = draft.view
    if len(view.queues) == len(draft.answered):
        return []
    look = view.queues.since.look(now, knobs.hold_s, lambda number: number not in draft.answered)
    return [*view.distrusted_until_s.values(), *([look.next_s] if look.next_s else [])]


def _touched(view: View, due: frozenset[str]) -> list[str]:
    """Models that somebody waits for, and of which something has changed, or somebody's time has come."""
    if view.touched is None:
        return list(view.queues.models())
    models = {request.model for number in due if (request := view.queues.get(number))}
    return [model for model in view.touched | models if view.queues.of(model)]


def _hopeful(view: View) -> list[str]:
    """Models that somebody waits for, and for which there may be room now."""
    if not view.roomier:
        return []
    return [model for model in view.queues.models() if _may_find_room(view, model)]


def _may_find_room(view: View, model: str) -> bool:
    """Whether one of the workers where there is more room has as much as the model takes at least."""
    entry = view.cluster.models.get(model)
    rooms = (view.index.account(worker_id).room_bytes for worker_id in view.roomier or ())
    return entry is not None and least_need_bytes(entry) <= max(rooms, default=-1)
