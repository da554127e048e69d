"""Why requests for a model are where they are: the policy's own answers, put in words, and what else there was."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from mesh.explanation import Alternative, HeldRequest, Way
from mesh.facts import ModelEntry
from mesh.requests import ServiceClass
from policy import migration
from policy.actions import Load, MakeWay, Place, Refuse, Unload
from policy.alternatives import Case, alternatives
from policy.draft import Draft
from policy.knobs import Knobs
from policy.order import Order
from policy.passage import passage
from policy.placement import Choice, place
from policy.view import View, Waiting

SHOWN = 5  # requests: the leader decides nothing meanwhile


def explain(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> tuple[HeldRequest, ...]:
    """Of the first requests that wait for a model, and last of one that came now. Each sees what is done for those
    before it."""
    newcomer = Waiting("", entry.name, now)
    with Draft(view) as draft:
        asked = enumerate([*islice(_in_turn(view, entry.name, now, knobs), SHOWN), newcomer])
        return tuple(_held(draft, Case(view, entry, request, ahead, now, knobs)) for ahead, request in asked)


def _in_turn(view: View, model: str, now: float, knobs: Knobs) -> Iterator[Waiting]:
    """Those who wait for a model, in the order in which they are served."""
    order = Order(view.shares, view.queues.rank, now, knobs)
    order.add(view.queues.of(model))
    while flow := order.next():
        yield flow.requests.popleft()
        if flow.requests:
            order.put(flow)


def _held(draft: Draft, case: Case) -> HeldRequest:
    request, found = case.request, alternatives(case)
    choice = place(case.view, request, case.now, case.knobs)
    why = _done(case, choice) or _nothing_done(case, found, choice)
    draft.take(choice.actions)
    draft.claim(choice.claims)
    service = ServiceClass(request.tenant, request.priority)
    marked = tuple(_marked(found, choice))
    return HeldRequest(request.request_id, case.now - request.since_s, service, case.ahead, why, marked)


def _done(case: Case, choice: Choice) -> str:
    """What is done for a request; empty if nothing is."""
    match list(choice.actions):
        case [Place(_, spot)]:
            return f"it takes a slot on {spot.worker_id}"
        case [Load(spot)]:
            return f"the model is loaded on {spot.worker_id}"
        case [Refuse(_, reason)]:
            return f"it is refused: {reason}"
        case [MakeWay(plan), *_]:
            where, ways = plan.spot.worker_id, migration.ways(case.view, case.entry, case.now, case.knobs)
            how = "; ".join(passage(case.view, one, case.knobs) for one in ways if one.candidate.member.id == where)
            return f"what runs on {where} is to go on elsewhere, to make room there: {how}"
        case [Unload(spot), *rest]:
            replicas = f"{1 + len(rest)} idle replicas make" if rest else "an idle replica makes"
            return f"{replicas} room on {spot.worker_id}"
    return ""


def _nothing_done(case: Case, found: Iterable[Alternative], choice: Choice) -> str:
    """Why it waits."""
    joined = [one for one in found if one.way is Way.JOIN]
    if case.view.is_unfit(case.entry.checkpoint.digest, case.now):
        return "it waits for a slot: the checkpoint could not be loaded a moment ago"
    if joined:
        return f"it waits for the load on {joined[0].worker_id}"
    if claims := [*choice.claims, *case.view.index.claims_of(case.entry.name)]:
        return f"it waits for room that is being made on {claims[0].worker_id}"
    if any(one.way is Way.WAIT for one in found):
        return "it waits for a slot: all replicas are full, and no worker has room for another"
    return "it waits for room: no worker has any, and nothing idle is enough"


def _marked(found: Iterable[Alternative], choice: Choice) -> Iterable[Alternative]:
    """With the one that is taken marked, which nothing stands against; who waits, waits for the quickest that will be
    there."""
    found = list(found)
    waits = ((one.way, one.worker_id) for one in found if one.way in (Way.JOIN, Way.WAIT) and not one.obstacle)
    taken = _taken(choice) if choice.actions else next(waits, None)
    for one in found:
        chosen = (one.way, one.worker_id) == taken
        yield replace(one, chosen=True, obstacle="") if chosen else one


def _taken(choice: Choice) -> tuple[Way, str] | None:
    match choice.actions[0]:
        case Place(_, spot):
            return Way.SLOT, spot.worker_id
        case Load(spot):
            return Way.LOAD, spot.worker_id
        case Unload(spot):
            return Way.EVICT, spot.worker_id
        case MakeWay(plan):
            return Way.MOVE, plan.spot.worker_id
    return None
