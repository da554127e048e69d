"""The whole judgement: decide(view, now) -> actions, and when to look again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from policy.actions import Action, Load, Place, RefusalReason, Refuse, Unload
from policy.draining import departures
from policy.keepalive import expiries
from policy.knobs import Knobs
from policy.placement import place, turn_away
from policy.succession import succession, successions
from policy.view import View, Waiting


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
            chosen: Sequence[Action] = turn_away(view, request, RefusalReason.QUEUE_FULL, knobs.distrust_s)
        else:
            chosen = place(view, request, now, knobs)
        if not any(isinstance(action, Place | Refuse) for action in chosen):
            queued[request.model] += 1
            held.append(request)
        actions += chosen
        view = _after(view, chosen)
    updates = successions(view)
    for entry in updates:
        chosen = succession(view, entry, now, knobs).actions
        actions += chosen
        view = _after(view, chosen)
    leaving = departures(view)
    going = [end.unload for end in leaving if end.at_s <= now]
    actions += going
    view = _after(view, going)
    ends = expiries(view, knobs)
    actions += [end.unload for end in sorted(ends, key=lambda end: end.unload.spot) if end.at_s <= now]
    later = [end.at_s for end in (*leaving, *ends)]
    later += [request.since_s + knobs.hold_s for request in held]
    later += view.distrusted_until_s.values() if held or updates else []
    later += view.unfit_until_s.values() if updates else []
    return Decision(tuple(actions), min((at_s for at_s in later if at_s > now), default=None))


def _after(view: View, chosen: Sequence[Action]) -> View:
    """The view as the next request must see it."""
    for action in chosen:
        if isinstance(action, Place):
            view = replace(view, placed={**view.placed, action.spot: view.placed.get(action.spot, 0) + 1})
        elif isinstance(action, Load):
            view = replace(view, loading=view.loading | {action.spot})
        elif isinstance(action, Unload):
            view = replace(view, unloading=view.unloading | {action.spot})
    return view
