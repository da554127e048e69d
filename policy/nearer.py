"""Whether idle replicas should go though there is memory elsewhere: where the checkpoint lies, a start may be so much
sooner that it pays to have them loaded again."""

from mesh.facts import ModelEntry
from policy.candidates import Candidate, sooner_candidates
from policy.evacuation import no_farther
from policy.knobs import Knobs
from policy.offers import Offers
from policy.room import Plan, cheapest_eviction
from policy.view import NOBODY, View


def nearer_room(
    view: View,
    entry: ModelEntry,
    best: Candidate,
    now: float,
    knobs: Knobs,
    *,
    offers: Offers,
    excluded: frozenset[int] = NOBODY,
) -> Plan | None:
    """Unloads on a worker where the version starts clearly sooner than at `best`, which has memory free; None if there
    is no such worker."""
    wins_s = max(knobs.move_wins_s, knobs.move_wins_share * best.estimate_s)
    latest_s = best.estimate_s - knobs.unload_s - wins_s
    if latest_s <= 0 or _is_nearest(best):
        return None
    able = no_farther(view, entry, sooner_candidates(view, entry, now, offers, latest_s, excluded=excluded))
    return cheapest_eviction(view, entry, able, now, knobs) if able else None


def _is_nearest(one: Candidate) -> bool:
    """Whether all comes from its own node's memory."""
    load = one.offer.load
    return not load.disk_bytes and not load.origin_bytes
