"""What a scheduler knows beside the facts: commands under way, idleness, distrust. It builds the view. No clock."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mesh.facts import ClusterFacts, ReplicaState
from policy.copying import Copying
from policy.rates import Rates
from policy.underway import Loads
from policy.view import Spot, View, Waiting


@dataclass(slots=True)
class Books:
    """Kept by whoever calls `decide`: the scheduler's one loop, or the simulator; nothing else writes here."""

    loading: set[Spot] = field(default_factory=set)
    unloading: set[Spot] = field(default_factory=set)
    idle_since_s: dict[Spot, float] = field(default_factory=dict)
    distrusted_until_s: dict[str, float] = field(default_factory=dict)
    unfit_until_s: dict[str, float] = field(default_factory=dict)
    retired: frozenset[Spot] = frozenset()
    copying: Copying = field(default_factory=Copying)
    rates: Rates = field(default_factory=Rates)
    loads: Loads = field(default_factory=Loads)

    def used(self, spot: Spot) -> None:
        """A request goes there: its idleness begins anew, though it may end before the facts have shown it."""
        self.idle_since_s.pop(spot, None)

    def view(self, cluster: ClusterFacts, waiting: Iterable[Waiting], placed: dict[Spot, int], now: float) -> View:
        """The moment `now`, after taking note of who has become idle, and of whom a newer version has taken over."""
        self.distrusted_until_s = {w: until_s for w, until_s in self.distrusted_until_s.items() if until_s > now}
        self.unfit_until_s = {d: until_s for d, until_s in self.unfit_until_s.items() if until_s > now}
        view = View(
            cluster=cluster,
            waiting=tuple(waiting),
            placed=placed,
            loading=frozenset(self.loading),
            unloading=frozenset(self.unloading),
            distrusted_until_s=dict(self.distrusted_until_s),
            unfit_until_s=dict(self.unfit_until_s),
            retired=self.retired,
            copying=self.copying,
            rates=self.rates,
            loads=self.loads,
        )
        ready = [seat for seat in view.seats() if seat.replica.state is ReplicaState.READY]
        idle = (seat.spot for seat in ready if view.busy(seat) == 0)
        self.idle_since_s = {spot: self.idle_since_s.get(spot, now) for spot in idle}
        self.retired = frozenset(seat.spot for seat in ready if view.is_superseded(seat))
        return replace(view, idle_since_s=dict(self.idle_since_s), retired=self.retired)
