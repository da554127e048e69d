"""Which models have fewer replicas than they are to have, or more than they need, and since when."""

from collections.abc import Iterable

from mesh.facts import ModelEntry
from policy.view import View

SURPLUS_SHARE = 0.5  # of what the others should have at most: below it one is not needed, up to 1 it stays as it is


class Tally:
    """Kept by the books, from what has changed."""

    def __init__(self) -> None:
        self.short: set[str] = set()
        self.crowded: set[str] = set()
        self.surplus_since_s: dict[str, float] = {}

    def note(self, view: View, models: Iterable[str], now: float) -> None:
        """Something may have changed about these."""
        for model in models:
            entry = view.cluster.models.get(model)
            if entry is None:
                view.demand.forget(model)
            have = len(view.up(entry)) + view.coming(entry) if entry else 0
            _keep(self.short, model, entry is not None and have < entry.min_replicas)
            _keep(self.crowded, model, entry is not None and have > 0 and _is_crowded(view, entry, have))
            if entry and _has_surplus(view, entry):
                self.surplus_since_s.setdefault(model, now)
            else:
                self.surplus_since_s.pop(model, None)


def _keep(names: set[str], model: str, belongs: bool) -> None:
    if belongs:
        names.add(model)
    else:
        names.discard(model)


def _is_crowded(view: View, entry: ModelEntry, have: int) -> bool:
    """Whether as much is asked of so many replicas as they should have, or more."""
    asked = len(view.queues.of(entry.name)) + sum(view.crowd(seat) for seat in view.up(entry))
    return asked >= have * (entry.target_concurrency or view.index.sizes().least_slots)


def _has_surplus(view: View, entry: ModelEntry) -> bool:
    """Whether all replicas but one would be half as busy, at most, as they are to be."""
    seats = view.up(entry)
    if len(seats) < 2:
        return False
    others = sum(entry.target_concurrency or seat.slots for seat in seats[1:])
    asked = sum(view.crowd(seat) for seat in seats) + len(view.queues.of(entry.name))
    return asked <= SURPLUS_SHARE * others
