"""Models that are expected soon: loaded before anybody asks, where that pays by what the forecast can be relied on."""

from dataclasses import replace

from mesh.facts import ModelEntry
from policy.actions import LoadReason
from policy.candidates import Candidate, candidates, load
from policy.draft import Draft
from policy.forecast import returns
from policy.knobs import Knobs
from policy.room import first_to_leave, just_enough, missing_bytes, soonest, spot_of, unload
from policy.view import View
from policy.worth import regret_s


def prewarm(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Looks at the models whose moment has come, and at those that room was made for. Returns the next moment."""
    view = draft.view
    claimed = {claim.model for claim in view.claims if claim.model in view.demand.closes_s}
    for name in sorted(claimed | view.demand.due):
        entry = view.cluster.models.get(name)
        if entry and not _is_there(view, entry, now):
            _ready(draft, entry, now, knobs)
    next_s = view.demand.next_s(now)
    return [] if next_s is None else [next_s]


def _is_there(view: View, entry: ModelEntry, now: float) -> bool:
    """Whether the model has a replica in whatever state, or those who want one see to it themselves."""
    name = entry.name
    if view.replicas.seats(name) or view.replicas.loads_of(name) or view.queues.of(name):
        return True
    return view.is_unfit(entry.checkpoint.digest, now)


def _ready(draft: Draft, entry: ModelEntry, now: float, knobs: Knobs) -> None:
    view = draft.view
    able = [one for one in _near(view, entry, candidates(view, entry, now, knobs)) if not _is_busy(view, one)]
    best = soonest(view, entry, able)
    if best and (view.is_claimed(entry) or _saved_s(view, entry, best, now, knobs) > 0):
        draft.take([replace(load(view, entry, best), reason=LoadReason.PREWARM)])
    elif best is None and not view.is_claimed(entry):
        _make_room(draft, entry, able, now, knobs)


def _make_room(draft: Draft, entry: ModelEntry, able: list[Candidate], now: float, knobs: Knobs) -> None:
    """Where what is expected to be saved exceeds most what the loss of idle replicas is expected to cost."""
    view = draft.view
    within_s = view.demand.closes_s[entry.name] - now
    plans = []
    for one in able:
        leaving = just_enough(view, first_to_leave(view, entry, one, now, knobs), missing_bytes(view, entry, one))
        lost_s = sum(regret_s(view, seat, now, within_s, knobs) for seat in leaving)
        won_s = _saved_s(view, entry, one, now, knobs) - knobs.prewarm_gain * lost_s
        if leaving and won_s > 0:
            plans.append((-won_s, one.member.id, leaving, one))
    if plans:
        _, _, leaving, one = min(plans, key=lambda plan: plan[:2])
        draft.take(unload(view, seat) for seat in leaving)
        draft.claim([spot_of(entry, one)])


def _saved_s(view: View, entry: ModelEntry, one: Candidate, now: float, knobs: Knobs) -> float:
    """Seconds of starting that a load now saves, as far as the forecast can be relied on, less what it costs those whom
    it delays. Who comes before it is done is saved nothing."""
    history, closes_s = view.demand.histories[entry.name], view.demand.closes_s[entry.name]
    pause_s = now - history.last_s
    chance = returns(
        history, pause_s, closes_s - history.last_s, min(pause_s + one.estimate_s, closes_s - history.last_s)
    )
    return (chance.surely - knobs.prewarm_io_share) * one.estimate_s


def _near(view: View, entry: ModelEntry, able: list[Candidate]) -> list[Candidate]:
    """Of the candidates, those where the checkpoint lies, if it lies anywhere: what comes over the network takes memory
    from what is needed there, and long."""
    lies_somewhere = any(view.index.near(entry.checkpoint.digest))
    return [one for one in able if not (lies_somewhere and one.load.origin_bytes)]


def _is_busy(view: View, one: Candidate) -> bool:
    """Whether a load is under way on the candidate's node, which must not be made slower."""
    workers = view.index.of_node(one.member.node)
    return any(view.replicas.loads_on(worker_id) for worker_id in workers)
