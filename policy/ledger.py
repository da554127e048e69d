"""What a scheduler knows beside the facts, and the views of it that decisions are made on."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from policy.backlog import Backlog
from policy.copying import Copying
from policy.demand import Demand
from policy.index import Index
from policy.moving import Moving
from policy.queues import Queues
from policy.rates import Rates
from policy.seat import Running
from policy.shares import EQUAL, Shares
from policy.spot import Spot
from policy.tally import Tally
from policy.underway import Loads
from policy.view import View
from policy.yielding import Yielding


class Ledger:
    """The books without those who write in them: books.py as things happen, settling.py when somebody looks."""

    def __init__(self, weights: Mapping[str, float] = EQUAL) -> None:
        self.index = Index()
        self.index.marks.all = True
        self.queues = Queues()
        self.runs: dict[Spot, dict[str, Running]] = {}
        self.idle_since_s: dict[Spot, float] = {}
        self.distrusted_until_s: dict[str, float] = {}
        self.unfit_until_s: dict[str, float] = {}
        self.retired: set[Spot] = set()
        self.copying = Copying()
        self.demand = Demand()
        self.moving = Moving()
        self.rates = Rates()
        self.loads = Loads()
        self.shares = Shares(weights)
        self.backlog = Backlog()
        self.unlined: AbstractSet[str] = frozenset()  # models that somebody waits for, and that are looked at first
        self.yielding = Yielding()
        self.tally = Tally()
        self.fresh: set[str] = set()  # requests with a deadline that no decision has seen yet
        self.where: dict[str, Spot] = {}  # of requests that hold a place

    @property
    def loading(self) -> set[Spot]:
        """Loads under way. Read only."""
        return self.index.replicas.loading

    @property
    def unloading(self) -> set[Spot]:
        """Unloads under way. Read only."""
        return self.index.replicas.unloading

    def spot_of(self, request_id: str) -> Spot | None:
        """Where a request runs; None if it does not."""
        return self.where.get(request_id)

    def stays(self, request_id: str) -> None:
        """It goes nowhere, or no farther."""
        if goal := self.moving.end(request_id):
            self.index.place(goal, -1)

    def glance(self) -> View:
        """What is known now, for a question between two decisions. It settles nothing."""
        return self.show(None, None, fresh=frozenset())

    def show(self, touched: AbstractSet[str] | None, roomier: AbstractSet[str] | None, fresh: AbstractSet[str]) -> View:
        """The moment as it stands in the books."""
        return View(
            cluster=self.index.cluster,
            waiting=self.queues,
            placed=self.index.replicas.placed,
            loading=self.loading,
            unloading=self.unloading,
            idle_since_s=self.idle_since_s,
            distrusted_until_s=self.distrusted_until_s,
            unfit_until_s=self.unfit_until_s,
            retired=self.retired,
            claims=self.index.claims,
            runs=self.runs,
            where=self.where,
            short=self.tally.short,
            crowded=self.tally.crowded,
            uneven=self.tally.uneven,
            surplus_since_s=self.tally.surplus_since_s,
            touched=touched,
            roomier=roomier,
            index=self.index,
            copying=self.copying,
            demand=self.demand,
            moving=self.moving,
            rates=self.rates,
            loads=self.loads,
            shares=self.shares,
            backlog=self.backlog,
            yielding=self.yielding,
            fresh=fresh,
        )
