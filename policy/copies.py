"""Which checkpoints lie on which node's disk and in which node's memory, by greedy marginal gain: the seconds that
starts are expected to save by one more copy, against those lost by what leaves for it (research/scheduling.md 5.4).

A copy is looked at when somebody had to do without it: when a model is loaded or unloaded, and when one of its copies
has come. Each is a Prefetch, behind what requests wait for, and one at a time for each store.
"""

from itertools import islice

from mesh.facts import Member, ModelEntry, Tier
from policy.actions import Load, Prefetch, Unload
from policy.candidates import least_need_bytes
from policy.draft import Draft
from policy.knobs import Knobs
from policy.shelves import crowded_out_s, free_bytes, make_room, places, takes, worth
from policy.view import View

SAFE = 2  # copies on disk of what is to be there whether or not anybody asks
SWAP = 2.0  # so much more than what it displaces is a copy to save: what has just gone does not come back for it
AFAR = 8  # nodes without the checkpoint that are looked at: those whose workers have the most room


def bring_up(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Brings copies nearer that are worth it. Returns when a store may be asked again that could not bring one."""
    view = draft.view
    for entry in _entries(draft):
        copy = _safe_copy(view, entry, now) or (_near_copy(view, entry, now, knobs) if knobs.copies else None)
        if copy:
            draft.take([copy])
    return [at_s for at_s in view.copying.barred_until_s.values() if at_s > now]


def _entries(draft: Draft) -> list[ModelEntry]:
    """The models whose copies are to be looked at, by name."""
    view = draft.view
    started = (action.spot.model for action in draft.actions if isinstance(action, Load | Unload))
    names = {*started, *(name for digest in view.copying.news for name in view.index.models_of(digest))}
    models = view.cluster.models
    touched = models if view.touched is None else view.touched
    names |= {name for name in touched if name in models and models[name].min_replicas}
    return [models[name] for name in sorted(names) if name in models]


def _safe_copy(view: View, entry: ModelEntry, now: float) -> Prefetch | None:
    """A further copy on disk of what must not depend on one machine."""
    if not entry.min_replicas:
        return None
    digest, size = entry.checkpoint.digest, entry.checkpoint.bytes
    there = places(view, digest, size, Tier.DISK)
    if not 0 < len(there) < SAFE:
        return None
    able = [store for store in view.index.sources.stores() if store.id not in there]
    able = [store for store in able if takes(view, store, digest, now) and free_bytes(store, Tier.DISK) >= size]
    best = max(able, key=lambda store: (free_bytes(store, Tier.DISK), store.id), default=None)
    return Prefetch(best.id, digest, Tier.DISK) if best else None


def _near_copy(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> Prefetch | None:
    """A further copy in memory, where what it surely saves is clearly more than what leaves for it is thought to."""
    digest = entry.checkpoint.digest
    if worth(view, entry, 0, now, knobs).surely < knobs.copy_wins_s:
        return None
    others = len(places(view, digest, entry.checkpoint.bytes, Tier.DRAM))
    gain_s = worth(view, entry, others, now, knobs).surely
    if gain_s < knobs.copy_wins_s:
        return None
    able = [store for store in _close(view, entry) if takes(view, store, digest, now)]
    shelves = [shelf for store in able if (shelf := make_room(view, store, entry, now, knobs))]
    for one in sorted(shelves, key=lambda one: (one.loss_s, len(one.instead), one.missing_bytes, one.store.id)):
        if gain_s > SWAP * one.loss_s and gain_s > crowded_out_s(view, one.store, entry, now, knobs):
            return Prefetch(one.store.id, digest, Tier.DRAM, one.instead)
    return None


def _close(view: View, entry: ModelEntry) -> list[Member]:
    """The stores that have something of it, and those beside the workers with the most room."""
    sources, memory = view.index.sources, view.index.memory
    workers = [view.index.workers[name] for name in islice(memory.roomiest(least_need_bytes(view, entry)), AFAR)]
    beside = [store for member in workers for store in sources.at(member.node)]
    return list(
        {
            store.id: store for store in (*(held.store for held in sources.holders(entry.checkpoint.digest)), *beside)
        }.values()
    )
