"""What a scheduler knows beside the facts: commands under way, idleness, distrust. It builds the view. No clock."""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from mesh.facts import ClusterFacts, ReplicaState
from policy.actions import Load, LoadReason
from policy.backlog import Backlog
from policy.candidates import least_need_bytes
from policy.copying import Copying
from policy.demand import Demand
from policy.evacuation import stands
from policy.index import Index, Marks
from policy.moving import Moving
from policy.queues import Queues, Waiting
from policy.rates import Rates
from policy.seat import Running
from policy.shares import EQUAL, LOADING, Shares
from policy.spot import Spot
from policy.tally import Tally
from policy.underway import Loads
from policy.view import View
from policy.waits import place_ended
from policy.yielding import Yielding


class Books:
    """Kept by whoever calls `decide`: the scheduler's one loop, or the simulator. Each change is told here once, as it
    happens; a view then costs what has changed since the last, and shows that as touched. Times are the decider's."""

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
        self.yielding = Yielding()
        self._fresh: set[str] = set()
        self.tally = Tally()
        self._spots: dict[str, Spot] = {}  # of requests that hold a place

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
        return self._spots.get(request_id)

    def observe(self, cluster: ClusterFacts) -> None:
        """The facts are these now. What has changed is known by its being another object."""
        if cluster is not self.index.cluster:
            self.index.observe(cluster)

    def arrived(self, request: Waiting) -> None:
        """A request waits."""
        self.queues.add(request)
        self.shares.came(request.tenant)
        if request.deadline_s is not None:
            self._fresh.add(request.request_id)
        self.index.marks.models.add(request.model)
        again = bool(request.excluded or request.digest)  # it has been here before
        if request.model in self.index.cluster.models and not again:
            self.demand.arrived(request.model, request.since_s)

    def placed(self, request_id: str, spot: Spot, now: float) -> None:
        """A request that waited has a place, and the replica's idleness begins anew, though it may end before the
        facts have shown it."""
        request = self._waits_no_more(request_id)
        asked = (request.prompt_tokens, request.tenant, request.priority, None, request.stays) if request else ()
        self._sit(Running(request_id, now, *asked), spot, now)

    def seated(self, run: Running, spot: Spot) -> None:
        """A request has a place that a former leader gave."""
        self._sit(run, spot, run.placed_s)

    def moves(self, request_id: str, to: Spot, now: float) -> None:
        """A request that runs was asked to go on elsewhere. Until it does, it has a place here and one there."""
        if spot := self._spots.get(request_id):
            self.stays(request_id)
            self.runs[spot][request_id] = replace(self.runs[spot][request_id], moved_s=now)
            self.moving.begin(request_id, spot, to)
            self.moving.since.put(request_id, now)
            self.index.place(to)

    def stays(self, request_id: str) -> None:
        """It goes nowhere, or no farther."""
        if goal := self.moving.end(request_id):
            self.index.place(goal, -1)

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
        self._forgive(now)
        self.index.settle()
        marks = self.index.marks
        spots = self._changed(marks)
        self._note_idle(spots, now)
        roomed = self._void_claims(marks)
        self._end_yields(marks)
        self._give_up_plans(marks, now)
        self.index.settle()
        self.copying.turn(now)
        self.index.marks = Marks()
        touched, roomier = (None, None) if marks.all else (marks.models, marks.roomier)
        view = self._view(touched, roomier, fresh=frozenset(self._fresh))
        self._fresh.clear()
        self._retire(view, spots)
        view.note_rest(spots)
        self._note_backlog(view, now)
        self.demand.advance(now, roomier=marks.all or bool(marks.roomier), roomed=roomed)
        names = self.index.cluster.models.keys() | self.demand.histories.keys() if marks.all else marks.models
        self._note_presence(names)
        self.tally.note(view, names, now)
        return view

    def glance(self) -> View:
        """What is known now, for a question between two decisions. It settles nothing."""
        return self._view(None, None, fresh=frozenset())

    def stirred(self, view: View) -> AbstractSet[str] | None:
        """The models touched at the moment of a view, or since by what was done; None: any may be."""
        marks = self.index.marks
        return None if view.touched is None or marks.all else view.touched | marks.models

    def _view(
        self, touched: AbstractSet[str] | None, roomier: AbstractSet[str] | None, fresh: AbstractSet[str]
    ) -> View:
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
            where=self._spots,
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

    def _waits_no_more(self, request_id: str) -> Waiting | None:
        request = self.queues.remove(request_id)
        if request:
            self.index.marks.models.add(request.model)
            self.shares.went(request.tenant)
            self._fresh.discard(request_id)
        return request

    def _sit(self, run: Running, spot: Spot, now: float) -> None:
        self.runs.setdefault(spot, {})[run.request_id] = run
        self._spots[run.request_id] = spot
        self.idle_since_s.pop(spot, None)
        self.index.place(spot)
        self.yielding.sat(run)
        self.shares.begin(run.request_id, spot.model, run.tenant, spot.worker_id, now)

    def _rise(self, request_id: str, now: float) -> tuple[Running, Spot] | None:
        spot = self._spots.pop(request_id, None)
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

    def _forgive(self, now: float) -> None:
        """Distrust ends."""
        marks = self.index.marks
        for worker_id in [one for one, until_s in self.distrusted_until_s.items() if until_s <= now]:
            del self.distrusted_until_s[worker_id]
            marks.roomier.add(worker_id)
            marks.models.update(seat.spot.model for seat in self.index.replicas.on(worker_id))
        for digest in [one for one, until_s in self.unfit_until_s.items() if until_s <= now]:
            del self.unfit_until_s[digest]
            marks.models.update(self.index.models_of(digest))

    def _changed(self, marks: Marks) -> Collection[Spot]:
        """Where something has changed that keep-alive goes by."""
        replicas = self.index.replicas
        if marks.all:
            return {seat.spot for seat in replicas.everywhere()} | marks.spots
        models = marks.entries | (marks.models & self.index.outdated)
        return marks.spots.union(seat.spot for model in models for seat in replicas.seats(model))

    def _note_presence(self, models: Iterable[str]) -> None:
        replicas = self.index.replicas
        for model in models:
            self.demand.note(model, is_there=bool(replicas.seats(model) or replicas.loads_of(model)))

    def _note_idle(self, spots: Collection[Spot], now: float) -> None:
        for spot in spots:
            seat = self.index.replicas.seat(spot)
            if seat and seat.replica.state is ReplicaState.READY and self.index.replicas.busy(seat) == 0:
                self.idle_since_s.setdefault(spot, now)
            else:
                self.idle_since_s.pop(spot, None)

    def _void_claims(self, marks: Marks) -> set[str]:
        """Ends those that nothing leaves for any more, or that nobody needs. Returns their models."""
        index = self.index
        claims = {spot for worker_id in marks.workers for spot in index.claims_on(worker_id)}
        claims.update(spot for model in marks.models for spot in index.claims_of(model))
        over = [spot for spot in (index.claims if marks.all else claims) if not self._stands(spot)]
        for spot in over:
            index.unclaim(spot)
        return {spot.model for spot in over}

    def _end_yields(self, marks: Marks) -> None:
        """Replicas take requests again once nobody waits for their memory, or it is found elsewhere."""
        for spot, to in list(self.yielding.to.items()):
            seat, entry = self.index.replicas.seat(spot), self.index.cluster.models.get(to.model)
            waits = self.queues.of(to.model) and not self.index.replicas.loads_of(to.model)
            current = entry is not None and entry.checkpoint.digest == to.digest
            if not (waits and current and seat and self.index.replicas.settled(seat)):
                self.yielding.drop([spot])
                marks.models.add(spot.model)

    def _give_up_plans(self, marks: Marks, now: float) -> None:
        """Ends those that the facts have overtaken, and moves to what is gone."""
        for request_id in [one for one, goal in self.moving.goals.items() if not self.index.replicas.seat(goal)]:
            self.stays(request_id)
        for plan in self.moving.evacuations:
            if not stands(self.glance(), plan, now):
                self.moving.drop(plan)
                marks.models.add(plan.spot.model)

    def _stands(self, claim: Spot) -> bool:
        entry = self.index.cluster.models.get(claim.model)
        if entry is None or entry.checkpoint.digest != claim.digest:
            return False
        wanted = bool(self.queues.of(claim.model)) or claim.model in self.index.outdated
        ahead = claim.model in self.tally.short or claim.model in self.demand.closes_s
        return (wanted or ahead or self._leaves(claim.model)) and self.index.account(claim.worker_id).leaving_bytes > 0

    def _leaves(self, model: str) -> bool:
        """Whether some of a model's requests run where they are to go from."""
        replicas, cluster = self.index.replicas, self.index.cluster
        return any(cluster.is_draining(seat.member) and replicas.busy(seat) for seat in replicas.seats(model))

    def _retire(self, view: View, spots: Collection[Spot]) -> None:
        for spot in spots:
            seat = self.index.replicas.seat(spot)
            if seat and seat.replica.state is ReplicaState.READY and view.is_superseded(seat):
                self.retired.add(spot)
            else:
                self.retired.discard(spot)

    def _note_backlog(self, view: View, now: float) -> None:
        """Which models wait for room: those that somebody waits for, unless for all of these something is under way."""
        if view.touched is None:
            self.backlog.clear()
        for model in self.queues.models() if view.touched is None else view.touched:
            entry, requests = view.cluster.models.get(model), self.queues.of(model)
            if entry and requests and (self.queues.odd[model] or not view.is_coming(entry, now)):
                self.backlog.put(model, least_need_bytes(view, entry), requests)
            else:
                self.backlog.drop(model)
