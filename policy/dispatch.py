"""Waiting requests, in order of service: those that may fare otherwise than when they were last looked at."""

from collections.abc import Iterable
from dataclasses import replace

from policy.actions import Action, Load, Place, RefusalReason
from policy.admission import Admission
from policy.agenda import Agenda, Line, is_apart
from policy.draft import Draft
from policy.knobs import Knobs
from policy.order import Order, next_band_s
from policy.placement import Choice, place, refusal, turn_away
from policy.precedence import let_yield, waits_for_memory
from policy.quota import beyond, over_quota
from policy.shares import LOADING
from policy.view import Waiting


def dispatch(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Places, loads for, makes room for or turns away the requests that wait. Returns when to look at them again."""
    view = draft.view
    if not len(view.queues):
        return []
    over = beyond(view, knobs)
    due = over.union(view.queues.since.look(now, knobs.hold_s).due, view.queues.again.look(now).due)
    agenda = Agenda(view, due, now, knobs)
    while found := agenda.next():
        line, flow = found
        request = flow.requests.popleft()
        apart = is_apart(view, request, due)
        if line.blocked and not apart and line.held < knobs.max_waiting:
            line.held += 1  # like one that has just found nothing
        elif request.request_id in over:
            draft.take(over_quota(view, request, knobs).actions)
        else:
            _charge(agenda.order, request, _serve(draft, line, request, now, knobs))
        line.left, line.apart = line.left - 1, line.apart - apart
        if flow.requests and not _is_settled(line, knobs):
            agenda.order.put(flow)
    return _moments(draft, now, knobs)


def _serve(draft: Draft, line: Line, request: Waiting, now: float, knobs: Knobs) -> tuple[Action, ...]:
    """Looks at one request."""
    if line.held < knobs.max_waiting:
        choice = place(draft.view, request, now, knobs)
        choice = _in_time(draft, line, request, choice, Admission(draft.view, now, knobs))
        if choice.patient_since_s is not None:
            draft.patience[request.request_id] = choice.patient_since_s
        if choice.again_s is not None:
            _again(draft, request, choice.again_s)
        elif not choice.actions and not choice.claims:
            choice = _go_before(draft, request, now, knobs)
    else:
        choice = turn_away(draft.view, request, RefusalReason.QUEUE_FULL, now, knobs)
    actions = tuple([_on_account(one, request.tenant) for one in choice.actions])
    draft.take(actions)
    draft.claim(choice.claims)
    if not choice.ends:
        line.held += 1
        line.blocked |= not request.odd
    return actions


def _on_account(action: Action, tenant: str) -> Action:
    """Whoever demands a load is charged for it."""
    return replace(action, tenant=tenant) if isinstance(action, Load) and action.tenant != tenant else action


def _in_time(draft: Draft, line: Line, request: Waiting, choice: Choice, admission: Admission) -> Choice:
    """What was chosen, unless it comes too late for the request's deadline: then it is turned away, and costs nobody
    anything."""
    if request.deadline_s is None:
        return choice
    verdict = admission.judge(request, request.deadline_s, choice.actions, line.held)
    if verdict.late:
        return refusal(request, RefusalReason.TOO_LATE, verdict.retry_after_s)
    if not choice.ends:
        draft.again[request.request_id] = verdict.late_at_s
    return choice


def _go_before(draft: Draft, request: Waiting, now: float, knobs: Knobs) -> Choice:
    """Has busy replicas make way for one that has found nothing, where it goes before those who use them. If it does
    not, it may once it has waited longer."""
    if not waits_for_memory(draft.view, request, now, knobs):
        return Choice()
    _again(draft, request, next_band_s(request, now, knobs))
    yields = let_yield(draft.view, request, now, knobs)
    return Choice((yields,) if yields else ())


def _again(draft: Draft, request: Waiting, at_s: float) -> None:
    draft.again[request.request_id] = min(at_s, draft.again.get(request.request_id, at_s))


def _charge(order: Order, request: Waiting, actions: Iterable[Action]) -> None:
    for action in actions:
        if isinstance(action, Place | Load):
            order.served(request.tenant, LOADING if isinstance(action, Load) else request.model)


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

    looks = (view.queues.since.look(now, knobs.hold_s, waits), view.queues.again.look(now, counts=waits))
    moments = [look.next_s for look in looks if look.next_s is not None]
    return [*view.distrusted_until_s.values(), *moments, *draft.again.values()]
