"""Which models have fewer replicas than they are to have, or more than they need, and since when; and of which some
replica has much more to do than another."""

from collections.abc import Iterable, Sequence

from mesh.facts import ModelEntry
from policy.view import Seat, View

NO_SEATS: list[Seat] = []
SURPLUS_SHARE = 0.5  # of what the others should have at most: below it one is not needed, up to 1 it stays as it is
UNEVEN_SHARE = 0.5  # of a replica's slots: by as many requests one must have more than another for any to go over


class Tally:
    """Kept by the books, from what has changed."""

    def __init__(self) -> None:
        self.short: set[str] = set()
        self.crowded: set[str] = set()
        self.uneven: set[str] = set()
        self.surplus_since_s: dict[str, float] = {}

    def note(self, view: View, models: Iterable[str], now: float) -> None:
        """Something may have changed about these."""
        for model in models:
            entry = view.entry(model)
            if entry is None:
                view.demand.forget(model)
            up = view.up(entry) if entry else NO_SEATS
            have = len(up) + view.coming(entry) if entry else 0
            crowds = [view.crowd(seat) for seat in up]
            asked = len(view.queues.of(model)) + sum(crowds) if have else 0
            _keep(self.short, model, entry is not None and have < entry.min_replicas)
            _keep(self.crowded, model, entry is not None and have > 0 and asked >= have * _wanted(view, entry))
            _keep(self.uneven, model, len(up) > 1 and max(crowds) - min(crowds) >= uneven_by(up))
            if entry and _has_surplus(entry, up, asked):
                self.surplus_since_s.setdefault(model, now)
            else:
                self.surplus_since_s.pop(model, None)


def uneven_by(up: Sequence[Seat]) -> float:
    """By how many requests two of these replicas must differ to be uneven; by one, a move would only turn it round."""
    return max(2, UNEVEN_SHARE * min(seat.slots for seat in up))


def _keep(names: set[str], model: str, belongs: bool) -> None:
    if belongs:
        names.add(model)
    else:
        names.discard(model)


def _wanted(view: View, entry: ModelEntry) -> int:
    """How much a replica should have at most: as much makes a crowd."""
    return entry.target_concurrency or view.index.sizes().least_slots


def _has_surplus(entry: ModelEntry, up: Sequence[Seat], asked: int) -> bool:
    """Whether all replicas but one would be half as busy, at most, as they are to be."""
    if len(up) < 2:
        return False
    others = sum(entry.target_concurrency or seat.slots for seat in up[1:])
    return asked <= SURPLUS_SHARE * others
