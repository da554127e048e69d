"""Whether a request should wait though a load could begin: for a slot of a replica that is there, or for memory where
the checkpoint lies, when anywhere else a start takes so much longer that this is sooner. Like skis that are rented
before they are bought: from when a load could first begin, nobody waits longer for that than the load takes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mesh.facts import ModelEntry
from policy.candidates import Candidate, sooner_near_candidates
from policy.knobs import Knobs
from policy.offers import Offers
from policy.room import missing_bytes
from policy.size import need_bytes
from policy.view import Spot, View, Waiting
from policy.waits import held_mean_s, left_s, slot_wait
from policy.worth import is_promised


@dataclass(frozen=True, slots=True)
class Patience:
    """Of one moment."""

    view: View
    now: float
    knobs: Knobs
    offers: Offers  # of the version that is waited for

    def until_s(self, entry: ModelEntry, request: Waiting, load: Candidate) -> float | None:
        """When to look again at a request that waits instead of having its model loaded there; None if it should not
        wait, or no longer."""
        until_s = self.since_s(request) + load.estimate_s
        if request.odd or self.now >= until_s:
            return None
        wins_s = max(self.knobs.move_wins_s, self.knobs.move_wins_share * load.estimate_s)
        waits = self._slot_s(entry) < load.estimate_s or self.near_s(entry, load.estimate_s) < load.estimate_s - wins_s
        return until_s if waits else None

    def since_s(self, request: Waiting) -> float:
        """Since when it waits though a load could begin."""
        return self.view.queues.patient_since_s.get(request.request_id, self.now)

    def near_s(self, entry: ModelEntry, most_s: float = math.inf) -> float:
        """Until it would be ready on a worker where the checkpoint lies, once what runs there has ended; of those where
        it starts sooner than `most_s`."""
        unload_s = self.knobs.unload_s
        near = sooner_near_candidates(self.view, entry, self.now, self.offers, most_s - unload_s)
        return min((one.estimate_s + unload_s + self._room_s(entry, one) for one in near), default=math.inf)

    def _slot_s(self, entry: ModelEntry) -> float:
        """Until all that wait for the model have a slot of those that it has."""
        view, digest = self.view, entry.checkpoint.digest
        slots = sum(one.slots for one in view.seats(entry.name) if one.replica.digest == digest and view.settled(one))
        if not slots:
            return math.inf
        wait = slot_wait(view.rates, entry.name, len(view.queues.of(entry.name)), slots, self.knobs)
        return view.rates.seconds(wait)

    def _room_s(self, entry: ModelEntry, near: Candidate) -> float:
        """Until enough of what runs on a worker is thought to have ended."""
        missing, waited_s = missing_bytes(self.view, entry, near), 0.0
        for rest_s, size in sorted(self._leavers(near)):
            if missing <= 0:
                break
            missing, waited_s = missing - size, rest_s
        return waited_s if missing <= 0 else math.inf

    def _leavers(self, near: Candidate) -> Iterator[tuple[float, int]]:
        """When each replica of a worker is thought to be idle that nobody waits for, or that is only on its way, and
        its bytes."""
        view = self.view
        for seat in view.replicas.on(near.member.id):
            alone = not seat.replica.base and not view.adapters(seat) and not is_promised(view, seat)
            if alone and view.settled(seat) and not view.queues.of(seat.spot.model):
                rests_s = [
                    left_s(view.rates, seat.spot.model, one, self.now, self.knobs) for one in view.running(seat.spot)
                ]
                if view.busy(seat) == len(rests_s):
                    yield max(rests_s, default=0.0), seat.replica.bytes
        for spot in (*view.replicas.loads_on(near.member.id), *view.index.claims_on(near.member.id)):
            if (other := view.cluster.models.get(spot.model)) and self._passes(other, near):
                size = need_bytes(view, other, near.member, near.worker)
                yield self._load_s(spot, near) + held_mean_s(view.rates, spot.model, self.knobs), size

    def _passes(self, other: ModelEntry, near: Candidate) -> bool:
        """Whether a replica on its way will be idle once it has answered those who wait for it: all have a slot, and it
        need not stay."""
        alone = not other.min_replicas and not other.checkpoint.base
        return alone and len(self.view.queues.of(other.name)) <= near.worker.slots

    def _load_s(self, spot: Spot, near: Candidate) -> float:
        """Until it is there; one that has not begun takes about as long as what would come after it."""
        rest = self.view.loads.rest(spot, self.now, self.view.rates, self.knobs)
        return rest.mean_s if rest else near.estimate_s
