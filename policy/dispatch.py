"""Waiting requests, in order of service: those that may fare otherwise than when they were last looked at."""

from collections.abc import Iterable
from dataclasses import replace

from policy.actions import Action, Load, Place, RefusalReason
from policy.admission import Admission
from policy.candidates import least_need_bytes
from policy.draft import Draft
from policy.knobs import Knobs
from policy.order import Order
from policy.placement import Choice, place, refusal, turn_away
from policy.shares import LOADING
from policy.view import View, Waiting


class Line:
    """The requests of one model. Once one has found nothing, others like it will find nothing either."""

    def __init__(self, view: View, model: str, due: frozenset[str], *, hopeful: bool) -> None:
        self.model = model
        self.hopeful = hopeful  # looked at only because there is more room somewhere
        self.left = len(view.queues.of(model))
        self.apart = _count_apart(view, model, due)  # of these, those to be looked at one by one
        self.held = 0
        self.blocked = False


def dispatch(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Places, loads for, makes room for or turns away the requests that wait. Returns when to look at them again."""
    view = draft.view
    due = frozenset((*view.queues.since.look(now, knobs.hold_s).due, *view.queues.late.look(now).due))
    lines = {model: Line(view, model, due, hopeful=False) for model in _touched(view, due)}
    lines |= {model: Line(view, model, due, hopeful=True) for model in _hopeful(view) if model not in lines}
    order = Order(view.shares, view.queues.rank, now, knobs)
    for model in lines:
        order.add(view.queues.of(model))
    while flow := order.next():
        line = lines[flow.model]
        if line.hopeful and not _may_find_room(view, line.model):
            continue
        request = flow.requests.popleft()
        apart = _is_apart(view, request, due)
        if line.blocked and not apart and line.held < knobs.max_waiting:
            line.held += 1  # like one that has just found nothing
        else:
            _charge(order, request, _serve(draft, line, request, now, knobs))
        line.left, line.apart = line.left - 1, line.apart - apart
        if flow.requests and not _is_settled(line, knobs):
            order.put(flow)
    return _moments(draft, now, knobs)


def _serve(draft: Draft, line: Line, request: Waiting, now: float, knobs: Knobs) -> tuple[Action, ...]:
    """Looks at one request."""
    if line.held < knobs.max_waiting:
        choice = _in_time(
            draft, line, request, place(draft.view, request, now, knobs), Admission(draft.view, now, knobs)
        )
    else:
        choice = turn_away(draft.view, request, RefusalReason.QUEUE_FULL, now, knobs)
    actions = tuple(replace(one, tenant=request.tenant) if isinstance(one, Load) else one for one in choice.actions)
    draft.take(actions)
    draft.claim(choice.claims)
    if not choice.ends:
        line.held += 1
        line.blocked |= not request.odd
    return actions


def _in_time(draft: Draft, line: Line, request: Waiting, choice: Choice, admission: Admission) -> Choice:
    """What was chosen, unless it comes too late for the request's deadline: then it is turned away, and costs nobody
    anything."""
    if request.deadline_s is None:
        return choice
    verdict = admission.judge(request, request.deadline_s, choice.actions, line.held)
    if verdict.late:
        return refusal(request, RefusalReason.TOO_LATE, verdict.retry_after_s)
    if not choice.ends:
        draft.late[request.request_id] = verdict.late_at_s
    return choice


def _charge(order: Order, request: Waiting, actions: Iterable[Action]) -> None:
    for action in actions:
        if isinstance(action, Place | Load):
            order.served(request.tenant, LOADING if isinstance(action, Load) else request.model)


def _count_apart(view: View, model: str, due: frozenset[str]) -> int:
    if not due and not view.fresh:
        return view.queues.odd[model]
    return sum(_is_apart(view, request, due) for request in view.queues.of(model))


def _is_apart(view: View, request: Waiting, due: frozenset[str]) -> bool:
    """Whether a request may fare otherwise than others of its model, or its time has come."""
    return request.odd or request.request_id in due or request.request_id in view.fresh


def _is_settled(line: Line, knobs: Knobs) -> bool:
    """Whether what is left of a line can only wait."""
    return line.blocked and not line.apart and line.held + line.left <= knobs.max_waiting


def _moments(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """When the next of those that wait will have waited long enough, or too long for its deadline, and when a worker is
    trusted again."""
    view = draft.view
    if len(view.queues) == len(draft.answered):
        return []

    def waits(number: str) -> bool:
        return number not in draft.answered

    looks = (view.queues.since.look(now, knobs.hold_s, waits), view.queues.late.look(now, counts=waits))
    moments = [look.next_s for look in looks if look.next_s is not None]
    return [*view.distrusted_until_s.values(), *moments, *draft.late.values()]


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
