"""What stores hold of checkpoints, what that is worth, and what would have to leave for more."""

import math
from dataclasses import dataclass

from mesh.facts import NEARNESS, CheckpointFacts, Member, ModelEntry, StoreFacts, Tier
from policy.estimate import Source
from policy.forecast import NOTHING, Forecast
from policy.knobs import Knobs
from policy.view import View

FURTHER = 0.1  # so much less often than one copy is the next needed: who waits for the nearest worker needs none
AT_ONCE = 1  # prefetches of one store
NO_LIMIT = 1 << 62  # bytes


@dataclass(frozen=True, slots=True)
class Shelf:
    """Room in a store's memory: which checkpoints leave for it, and what they were worth."""

    store: Member
    missing_bytes: int  # of the newcomer
    instead: tuple[str, ...] = ()
    loss_s: float = 0.0


def worth(view: View, entry: ModelEntry, others: int, now: float, knobs: Knobs) -> Forecast:
    """Seconds that requests to come save by one copy in memory beside so many others, before `copy_horizon_s`: as many
    as came lately, by the hour's rate. Bursts are over too soon."""
    history = view.demand.histories.get(entry.name)
    if history is None:
        return NOTHING
    version, holders = entry.checkpoint, view.index.sources.holders(entry.checkpoint.digest)
    on_disk = any(_reaches(held, version.bytes, Tier.DISK) for held in holders)
    byte_s = _byte_s(view, Tier.DISK if on_disk else Tier.ORIGIN, knobs) - _byte_s(view, Tier.DRAM, knobs)
    asked = history.base.per_s(now) * knobs.copy_horizon_s
    saved_s = FURTHER**others * version.bytes * byte_s
    return Forecast(asked * saved_s, math.sqrt(asked + asked * asked / history.base.faded(now)) * saved_s)


def places(view: View, digest: str, size: int, tier: Tier) -> set[str]:
    """The stores that have all of a checkpoint in a tier or a nearer one, or will: what a load brings stays with its
    node's."""
    there = {held.store.id for held in view.index.sources.holders(digest) if _reaches(held, size, tier)}
    under_way = (copy for copy in view.copying.under_way if copy.digest == digest)
    there |= {copy.store_id for copy in under_way if NEARNESS[copy.tier] >= NEARNESS[tier]}
    return there | {store.id for node in _loading(view, digest) for store in view.index.sources.at(node)}


def takes(view: View, store: Member, digest: str, now: float) -> bool:
    """Whether a store can be asked for another checkpoint now."""
    copying = view.copying
    return copying.at(store.id) < AT_ONCE and not copying.is_barred(store.id, digest, now)


def free_bytes(store: Member, tier: Tier) -> int:
    """Of a tier, DISK or DRAM; of a disk without a limit, more than anything takes."""
    facts = store.store
    if facts is None:
        return 0
    if tier is Tier.DRAM:
        return facts.dram_capacity_bytes - facts.dram_used_bytes
    return (facts.disk_capacity_bytes or NO_LIMIT) - facts.disk_used_bytes


def make_room(view: View, store: Member, entry: ModelEntry, now: float, knobs: Knobs) -> Shelf | None:
    """The checkpoints that are worth the least a byte leave a store's memory, as many as must; None if it is there, or
    all that may leave is too little."""
    facts, version = store.store, entry.checkpoint
    if facts is None or version.bytes > facts.dram_capacity_bytes:
        return None
    held = facts.held(version.digest)
    missing = version.bytes - (held.dram_bytes if held else 0)
    lacking, loss_s, instead = missing - free_bytes(store, Tier.DRAM), 0.0, list[str]()
    for lost_s, one in _least_first(view, store, facts, now, knobs) if lacking > 0 else ():
        if lacking > 0 and one.digest != version.digest:
            lacking -= one.dram_bytes
            loss_s += lost_s
            instead.append(one.digest)
    if missing <= 0 or lacking > 0:
        return None
    return Shelf(store, missing, tuple(instead), loss_s)


def crowded_out_s(view: View, store: Member, entry: ModelEntry, now: float, knobs: Knobs) -> float:
    """What a store's checkpoints are worth for which there would be no room, were its memory given to them by what they
    are worth, and to the newcomer before them: what is on its disk only will want memory when it is loaded."""
    facts = store.store
    rivals = [one for one in facts.checkpoints if one.digest != entry.checkpoint.digest] if facts else []
    worth = ((_wanted_s(view, one, now, knobs), one) for one in rivals)
    left, lost_s = facts.dram_capacity_bytes if facts else 0, 0.0
    for wanted_s, one in sorted(worth, key=lambda pair: (-pair[0] / max(1, pair[1].bytes), pair[1].digest)):
        left -= one.bytes
        if left < 0:
            break
        if left < entry.checkpoint.bytes:
            lost_s += wanted_s
    return lost_s


def _least_first(
    view: View, store: Member, facts: StoreFacts, now: float, knobs: Knobs
) -> list[tuple[float, CheckpointFacts]]:
    """What a store has in memory and nobody reads, with what it is worth there; the least a byte first."""
    read = _read(view, store)
    free = [one for one in facts.checkpoints if one.dram_bytes and one.digest not in read]
    worth = [(_loss_s(view, one, now, knobs), one) for one in free]
    return sorted(worth, key=lambda pair: (pair[0] / pair[1].dram_bytes, pair[1].digest))


def _loss_s(view: View, held: CheckpointFacts, now: float, knobs: Knobs) -> float:
    return held.dram_bytes / max(1, held.bytes) * _wanted_s(view, held, now, knobs)


def _wanted_s(view: View, held: CheckpointFacts, now: float, knobs: Knobs) -> float:
    """What all of a checkpoint is worth in the memory of a store that has some of it."""
    names = [name for name in view.index.models_of(held.digest) if name in view.demand.histories]
    if not names:
        return 0.0
    there = len(places(view, held.digest, held.bytes, Tier.DRAM))
    others = max(0, there - 1) if held.dram_bytes >= held.bytes else there
    return sum(worth(view, view.cluster.models[name], others, now, knobs).mean for name in names)


def _loading(view: View, digest: str) -> set[str]:
    """Nodes where a checkpoint is being loaded."""
    loads = (spot for name in view.index.models_of(digest) for spot in view.replicas.loads_of(name))
    return {view.index.workers[spot.worker_id].node for spot in loads if spot.digest == digest}


def _read(view: View, store: Member) -> set[str]:
    """Checkpoints that a node's workers load now, or, where weights are the store's own memory, run."""
    names = view.index.of_node(store.node)
    loading = {spot.digest for name in names for spot in view.replicas.loads_on(name)}
    seats = [seat for name in names for seat in view.replicas.on(name)]
    return loading | {seat.spot.digest for seat in seats if seat.member.worker and seat.member.worker.device == "host"}


def _reaches(held: Source, size: int, tier: Tier) -> bool:
    there = held.dram_bytes if tier is Tier.DRAM else held.dram_bytes + held.disk_bytes
    return there >= size


def _byte_s(view: View, tier: Tier, knobs: Knobs) -> float:
    return view.rates.byte_s(tier, "", 1.0 / knobs.bytes_per_s[tier])
