"""The whole judgement: decide(view, now) -> actions, and when to look again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from policy.actions import Action, Load, Place, RefusalReason, Refuse, Unload
from policy.keepalive import expiries
from policy.knobs import Knobs
from policy.placement import place
from policy.view import Spot, View, Waiting


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and the moment at which time alone would change the answer (None: never)."""

    actions: tuple[Action, ...]
    look_again_s: float | None


def decide(view: View, now: float, knobs: Knobs) -> Decision:
    """Equal views give equal decisions. Times are readings of one clock, in seconds."""
    actions: list[Action] = []
    held: list[Waiting] = []
    queued: Counter[str] = Counter()
    for request in view.waiting:
        if queued[request.model] >= knobs.max_waiting:
            chosen: Sequence[Action] = [Refuse(request.request_id, RefusalReason.QUEUE_FULL, knobs.distrust_s)]
        else:
            chosen = place(view, request, now, knobs)
        if not any(isinstance(action, Place | Refuse) for action in chosen):
            queued[request.model] += 1
            held.append(request)
        actions += chosen
        view = _after(view, request.model, chosen)
    ends = expiries(view, knobs)
    due = sorted((end for end in ends if end.at_s <= now), key=lambda end: (end.unload.worker_id, end.unload.model))
    actions += [end.unload for end in due]
    later = [end.at_s for end in ends]
    later += [request.since_s + knobs.hold_s for request in held]
    later += view.distrusted_until_s.values() if held else []
    return Decision(tuple(actions), min((at_s for at_s in later if at_s > now), default=None))


def _after(view: View, model: str, chosen: Sequence[Action]) -> View:
    """The view as the next request must see it."""
    for action in chosen:
        if isinstance(action, Place):
            spot = Spot(action.worker_id, model)
            view = replace(view, placed={**view.placed, spot: view.placed.get(spot, 0) + 1})
        elif isinstance(action, Load):
            view = replace(view, loading=view.loading | {Spot(action.worker_id, action.model)})
        elif isinstance(action, Unload):
            view = replace(view, unloading=view.unloading | {Spot(action.worker_id, action.model)})
    return view
