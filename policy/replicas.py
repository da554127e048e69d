"""Replicas by model and by worker, and what was sent to each, whatever the facts show yet."""

from collections.abc import Collection, Iterator
from typing import TypeVar

from policy.seat import Seat
from policy.spot import Spot

T = TypeVar("T")
NO_SEATS: dict[Spot, Seat] = {}
NO_SPOTS: frozenset[Spot] = frozenset()


class Replicas:
    """`placed` counts requests that hold a place; `loading` and `unloading` are commands under way."""

    def __init__(self) -> None:
        self.placed: dict[Spot, int] = {}
        self.loading: set[Spot] = set()
        self.unloading: set[Spot] = set()
        self._of: dict[str, dict[Spot, Seat]] = {}
        self._on: dict[str, dict[Spot, Seat]] = {}
        self._adapters: dict[Spot, list[Seat]] = {}
        self._base: dict[Spot, Seat] = {}
        self._loads_of: dict[str, set[Spot]] = {}
        self._loads_on: dict[str, set[Spot]] = {}

    def put(self, worker_id: str, seats: Collection[Seat]) -> set[Spot]:
        """What a worker has, from now on. Returns where there is something else than was, or nothing any more; all of
        it, where there are adapters: what holds of one holds of its base."""
        before, after = self._on.pop(worker_id, NO_SEATS), {seat.spot: seat for seat in seats}
        for spot in before:
            self._remove(spot)
        for spot, seat in after.items():
            self._of.setdefault(spot.model, {})[spot] = seat
        if after:
            self._on[worker_id] = after
        tied = any(seat.replica.base for seat in (*before.values(), *after.values()))
        if tied:
            self._tie(list(after.values()))
        if tied and before != after:
            return before.keys() | after.keys()
        return {spot for spot in before.keys() | after.keys() if _differ(before.get(spot), after.get(spot))}

    def place(self, spot: Spot, count: int = 1) -> None:
        """Requests get a place there, or give it back: then `count` is negative."""
        self.placed[spot] = self.placed.get(spot, 0) + count
        if not self.placed[spot]:
            del self.placed[spot]

    def load(self, spot: Spot) -> None:
        """A load begins."""
        self.loading.add(spot)
        self._loads_of.setdefault(spot.model, set()).add(spot)
        self._loads_on.setdefault(spot.worker_id, set()).add(spot)

    def loaded(self, spot: Spot) -> None:
        """A load has ended."""
        self.loading.discard(spot)
        discard(self._loads_of, spot.model, spot)
        discard(self._loads_on, spot.worker_id, spot)

    def seats(self, model: str) -> Collection[Seat]:
        """Of one model."""
        return self._of.get(model, NO_SEATS).values()

    def everywhere(self) -> Iterator[Seat]:
        """Of all models."""
        return (seat for seats in self._on.values() for seat in seats.values())

    def on(self, worker_id: str) -> Collection[Seat]:
        """Of one worker."""
        return self._on.get(worker_id, NO_SEATS).values()

    def seat(self, spot: Spot) -> Seat | None:
        """The replica there, if one is."""
        return self._on.get(spot.worker_id, NO_SEATS).get(spot)

    def loads_of(self, model: str) -> Collection[Spot]:
        """Loads of a model that were commanded."""
        return self._loads_of.get(model, NO_SPOTS)

    def loads_on(self, worker_id: str) -> Collection[Spot]:
        """Loads that a worker was commanded."""
        return self._loads_on.get(worker_id, NO_SPOTS)

    def adapters(self, seat: Seat) -> list[Seat]:
        """Those on a replica, in whatever state."""
        return self._adapters.get(seat.spot, [])

    def base(self, seat: Seat) -> Seat:
        """What an adapter is on; of anything else, itself."""
        return self._base.get(seat.spot, seat)

    def busy(self, seat: Seat) -> int:
        """Requests on a replica: what it reports or what was sent there, whichever is more."""
        reported, sent = seat.reported, self.placed.get(seat.spot, 0)
        return sent if sent > reported else reported

    def crowd(self, seat: Seat) -> int:
        """Requests that share a replica's slots: its own, and those of all adapters on the same weights."""
        if not self._base:  # the usual case, on the path of every request
            return self.busy(seat)
        base = self.base(seat)
        return self.busy(base) + sum(self.busy(one) for one in self.adapters(base))

    def settled(self, seat: Seat) -> bool:
        """Ready, and no command for it under way: facts may be quicker than the answer of the load itself."""
        spot = seat.spot
        return seat.is_ready and spot not in self.loading and spot not in self.unloading

    def idle(self, seat: Seat) -> bool:
        """Whether a replica may be unloaded, with the adapters on it: nothing runs there or was sent there."""
        if self.busy(seat) or not self.settled(seat):
            return False
        return not self._adapters or all(self.idle(one) for one in self.adapters(seat))

    def leaves(self, seat: Seat) -> bool:
        """Whether a replica is on its way out."""
        return seat.spot in self.unloading or not (seat.is_ready or seat.is_loading)

    def _remove(self, spot: Spot) -> None:
        self._adapters.pop(spot, None)
        self._base.pop(spot, None)
        seats = self._of[spot.model]
        del seats[spot]
        if not seats:
            del self._of[spot.model]

    def _tie(self, seats: list[Seat]) -> None:
        for base in seats:
            if carried := [seat for seat in seats if base.replica.carries(seat.replica)]:
                self._adapters[base.spot] = carried
                self._base.update((seat.spot, base) for seat in carried)


def discard(table: dict[str, set[T]], key: str, member: T) -> None:
    """Takes a member out of the set of a key; a set that is empty then goes, too."""
    if found := table.get(key):
        found.discard(member)
        if not found:
            del table[key]


def _differ(one: Seat | None, other: Seat | None) -> bool:
    if one is None or other is None:
        return True
    if one.slots != other.slots or (one.replica is not other.replica and one.replica != other.replica):
        return True
    return one.member.fence != other.member.fence or one.member.node != other.member.node
