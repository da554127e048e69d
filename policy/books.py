"""What happens is written in the books: commands under way, idleness, distrust. No clock."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace

from mesh.facts import ClusterFacts
from policy.actions import Load, LoadReason
from policy.ledger import Ledger
from policy.queues import Waiting
from policy.seat import Running
from policy.settling import settled
from policy.shares import LOADING
from policy.spot import Spot
from policy.view import View
from policy.waits import place_ended


class Books(Ledger):
    """Kept by whoever calls `decide`: the scheduler's one loop, or the simulator. Each change is told here once, as it
    happens; a view then costs what has changed since the last, and shows that as touched. Times are the decider's."""

    def observe(self, cluster: ClusterFacts) -> None:
        """The facts are these now. What has changed is known by its being another object."""
        if cluster is not self.index.cluster:
            self.index.observe(cluster)

    def arrived(self, request: Waiting) -> None:
        """A request waits."""
        self.queues.add(request)
        self.shares.came(request.tenant)
        if request.deadline_s is not None:
            self.fresh.add(request.request_id)
        self.index.marks.models.add(request.model)
        again = bool(request.excluded or request.digest)  # it has been here before
        if request.model in self.index.cluster.models and not again:
            self.demand.arrived(request.model, request.since_s)

    def placed(self, request_id: str, spot: Spot, now: float) -> None:
        """A request that waited has a place, and the replica's idleness begins anew, though it may end before the
        facts have shown it."""
        request = self._waits_no_more(request_id)
        if request is None:
            self._sit(Running(request_id, now), spot, now)
            return
        tokens, tenant, priority = request.prompt_tokens, request.tenant, request.priority
        self._sit(Running(request_id, now, tokens, tenant, priority, stays=request.stays), spot, now)

    def seated(self, run: Running, spot: Spot) -> None:
        """A request has a place that a former leader gave."""
        self._sit(run, spot, run.placed_s)

    def moves(self, request_id: str, to: Spot, now: float) -> None:
        """A request that runs was asked to go on elsewhere. Until it does, it has a place here and one there."""
        if spot := self.where.get(request_id):
            self.stays(request_id)
            self.runs[spot][request_id] = replace(self.runs[spot][request_id], moved_s=now)
            self.moving.begin(request_id, spot, to)
            self.moving.since.put(request_id, now)
            self.index.place(to)

    def moved(self, request_id: str, to: Spot, now: float) -> None:
        """A request that runs goes on elsewhere."""
        if left := self._rise(request_id, now):
            run, _ = left
            self._sit(replace(run, moved_s=now), to, now)
            self.moving.since.put(request_id, now)

    def left(self, request_id: str, now: float) -> None:
        """A request waits no more, or gives its place back. Nothing, if it is not known."""
        if self._waits_no_more(request_id):
            return
        if left := self._rise(request_id, now):
            run, spot = left
            self.moving.since.drop(request_id)
            place_ended(self.rates, spot, self.index.replicas.seat(spot), now - run.placed_s)

    def load_began(self, load: Load, now: float) -> None:
        """A load was commanded; who demands it is charged. Its model waits for no other room any more."""
        spot = load.spot
        if load.reason is LoadReason.DEMAND:
            self.shares.begin(spot, LOADING, load.tenant, spot.worker_id, now)
        for claim in tuple(self.index.claims_of(spot.model)):
            self.index.unclaim(claim)
        self.demand.met(spot.model)
        self.index.load(spot)

    def load_ended(self, spot: Spot, now: float) -> None:
        """It is there, as the facts show, or it is not."""
        self.shares.end(spot, now)
        self.index.loaded(spot)

    def unload_began(self, spot: Spot) -> None:
        """An unload was commanded."""
        self.index.unload(spot)

    def unload_ended(self, spot: Spot) -> None:
        """It is gone, as the facts show, or it is not."""
        self.index.unloaded(spot)

    def claimed(self, spots: Iterable[Spot]) -> None:
        """Room is being made for these versions: what leaves there is theirs."""
        for spot in spots:
            self.index.claim(spot)

    def look_again(self, moments: Iterable[tuple[str, float]]) -> None:
        """When requests will have waited too long for their deadlines, or long enough to go before others."""
        for request_id, at_s in moments:
            if self.queues.get(request_id):
                self.queues.again.put(request_id, at_s)

    def distrust(self, worker_id: str, until_s: float) -> None:
        """A worker could not be reached."""
        self.distrusted_until_s[worker_id] = until_s
        self.index.marks.models.update(seat.spot.model for seat in self.index.replicas.on(worker_id))

    def unfit(self, digest: str, until_s: float) -> None:
        """A checkpoint could not be loaded."""
        self.unfit_until_s[digest] = until_s
        self.index.marks.models.update(self.index.models_of(digest))

    def touch_all(self) -> None:
        """The next decision looks at everything: what an earlier one asked for was not done."""
        self.index.marks.all = True

    def view(self, now: float) -> View:
        """The moment `now`, after taking note of who has become idle, and of whom a newer version has taken over. What
        it shows as touched, the next will not: it must be decided on."""
        return settled(self, now)

    def stirred(self, view: View) -> AbstractSet[str] | None:
        """The models touched at the moment of a view, or since by what was done; None: any may be."""
        marks = self.index.marks
        return None if view.touched is None or marks.all else view.touched | marks.models

    def _waits_no_more(self, request_id: str) -> Waiting | None:
        request = self.queues.remove(request_id)
        if request:
            self.index.marks.models.add(request.model)
            self.shares.went(request.tenant)
            self.fresh.discard(request_id)
        return request

    def _sit(self, run: Running, spot: Spot, now: float) -> None:
        self.runs.setdefault(spot, {})[run.request_id] = run
        self.where[run.request_id] = spot
        self.idle_since_s.pop(spot, None)
        self.index.place(spot)
        self.yielding.sat(run)
        self.shares.begin(run.request_id, spot.model, run.tenant, spot.worker_id, now)

    def _rise(self, request_id: str, now: float) -> tuple[Running, Spot] | None:
        spot = self.where.pop(request_id, None)
        if spot is None:
            return None
        self.stays(request_id)
        run = self.runs[spot].pop(request_id)
        if not self.runs[spot]:
            del self.runs[spot]
        self.index.place(spot, -1)
        self.yielding.rose(run)
        self.shares.end(request_id, now)
        return run, spot
