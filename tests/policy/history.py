"""A small cluster to which anything may happen, and books that are told of it: for tests of what decisions remember."""

from dataclasses import replace
from itertools import count

from mesh.facts import (
    CheckpointFacts,
    ClusterFacts,
    Member,
    Priority,
    ReplicaFacts,
    ReplicaState,
    StoreFacts,
    Tier,
)
from policy.actions import Action, Load, MakeWay, Move, Place, Refuse, Unload
from policy.books import Books
from policy.decide import Decision, decide
from policy.knobs import Knobs
from policy.view import Spot, View, Waiting
from tests.policy.scene import KV, WEIGHTS, fence, model, store, worker

KNOBS = Knobs(yields=False, keep_alive_s=20.0, hold_s=30.0, max_waiting=3, distrust_s=5.0, unfit_s=7.0)
MODELS = {
    "a": model("a"),
    "b": model("b", weights=6, keep_alive_s=4.0),
    "c": model("c", weights=20),
    "d": model("d", weights=2, base="a@1"),
}
DIGESTS = ("a@1", "a@2", "b@1", "b@2", "c@1", "d@1")
MEMBERS = (
    worker("w0", memory=14, slots=1),
    worker("w1", memory=26, node="n2"),
    worker("w2", memory=40, node="n2"),
    store("s1", *DIGESTS),
    store("s2", "a@1", "c@1", node="n2", tier=Tier.DRAM),
)


def anew(view: View) -> View:
    """The same moment for one who has just come: all of it is looked at, by an index of its own."""
    return replace(
        view,
        waiting=tuple(view.waiting),
        placed=dict(view.placed),
        loading=frozenset(view.loading),
        unloading=frozenset(view.unloading),
        claims=frozenset(view.claims),
        touched=None,
        roomier=None,
    )


class History:
    """Facts change as a mirror's do: what has not changed is the same object."""

    def __init__(self, members: tuple[Member, ...] = MEMBERS, knobs: Knobs = KNOBS) -> None:
        self.books, self.now, self.knobs = Books(), 100.0, knobs
        self._workers = {f"{member.kind}/{member.id}": member for member in members if member.worker}
        self.members = {f"{member.kind}/{member.id}": member for member in members}
        self.models = dict(MODELS)
        self.drains: frozenset[str] = frozenset()
        self.requests: dict[str, Waiting] = {}
        self._numbers = count()

    def happen(self, name: str, choice: int) -> None:
        """One thing of those below, to the one that the number chooses."""
        getattr(self, name)(choice)

    def decide(self) -> tuple[View, Decision]:
        """As the scheduler's loop does: all that is decided is begun."""
        self.books.observe(ClusterFacts(dict(self.members), self.models, drains=self.drains))
        view = self.books.view(self.now)
        return view, decide(view, self.now, self.knobs)

    def act(self, decision: Decision) -> None:
        """Begins what was decided."""
        for action in decision.actions:
            self._begin(action)
        self.books.claimed(decision.claims)

    def ask(self, choice: int) -> None:
        """A request comes; some have been failed by a worker, some want the newest version only."""
        names = (*MODELS, "unknown")
        excluded = frozenset([fence(f"w{choice % 3}")]) if choice % 5 == 0 else frozenset()
        number = f"r{next(self._numbers)}"
        tenant, priority = f"t{choice % 2}", list(Priority)[choice % 3]
        self.requests[number] = Waiting(
            number, names[choice % 5], self.now, excluded, choice % 7 == 0, tenant=tenant, priority=priority
        )
        self.books.arrived(self.requests[number])

    def leave(self, choice: int) -> None:
        """A request ends, wherever it is."""
        if self.requests:
            number = sorted(self.requests)[choice % len(self.requests)]
            del self.requests[number]
            self.books.left(number, self.now)

    def complete(self, choice: int) -> None:
        """A command comes to its end, which the facts show first."""
        if spot := self._command(choice):
            loading = spot in self.books.loading
            self._set(spot, ReplicaState.READY if loading else None)
            if choice % 2:
                self.books.observe(ClusterFacts(dict(self.members), self.models, drains=self.drains))
            self._ended(spot, loading=loading)

    def fail(self, choice: int) -> None:
        """A command fails, by the worker's fault or by the checkpoint's."""
        if spot := self._command(choice):
            loading = spot in self.books.loading
            if loading:
                self._set(spot, None)
            self._ended(spot, loading=loading)
            if choice % 2 and loading:
                self.books.unfit(spot.digest, self.now + self.knobs.unfit_s)
            else:
                self.books.distrust(spot.worker_id, self.now + self.knobs.distrust_s)

    def arrive(self, choice: int) -> None:
        """A request that moves is there, or stays where it is."""
        if self.books.moving.goals:
            number = sorted(self.books.moving.goals)[choice % len(self.books.moving.goals)]
            goal = self.books.moving.goals[number]
            if choice % 4:
                self.books.moved(number, goal, self.now)
            else:
                self.books.stays(number)

    def report(self, choice: int) -> None:
        """A worker says that it runs something, or nothing any more."""
        member = self.members.get(sorted(self._workers)[choice % len(self._workers)])
        if member and member.worker and member.worker.replicas:
            first, *others = member.worker.replicas
            self._put(member, replace(first, running=choice % 2), *others)

    def update(self, choice: int) -> None:
        """A model changes its version, is deleted, or comes back."""
        name = "ab"[choice % 2]
        entry = self.models.get(name, MODELS[name])
        digest = f"{name}@{1 + choice % 3 % 2}"
        version = replace(entry.checkpoint, digest=digest)
        fresh = {
            **self.models,
            name: replace(entry, checkpoint=version, previous=entry.checkpoint),
        }
        if choice % 4 == 0:
            del fresh[name]
        self.models = fresh

    def turn(self, choice: int) -> None:
        """A worker is lost with what it had, or comes back empty; at times it is to become empty."""
        key = sorted(self._workers)[choice % len(self._workers)]
        if choice % 4 == 0:
            self.drains = self.drains ^ {key}
        elif key not in self.members:
            self.members = {**self.members, key: self._workers[key]}
        else:
            gone = self.members[key].id
            self.members = {name: member for name, member in self.members.items() if name != key}
            for spot in [one for one in self.books.loading | self.books.unloading if one.worker_id == gone]:
                self._ended(spot, loading=spot in self.books.loading)

    def hold(self, choice: int) -> None:
        """A store gets a checkpoint, or loses one."""
        key, digest = f"store/s{1 + choice % 2}", DIGESTS[choice % len(DIGESTS)]
        facts = self.members[key].store
        assert facts
        held = tuple(one for one in facts.checkpoints if one.digest != digest)
        if len(held) == len(facts.checkpoints):
            held = (*held, CheckpointFacts(digest, WEIGHTS, Tier.DISK))
        self.members = {**self.members, key: replace(self.members[key], store=StoreFacts(0, 0, 0, held))}

    def wait(self, choice: int) -> None:
        """Time passes."""
        self.now += 0.25 * (choice % 40)

    def _begin(self, action: Action) -> None:
        match action:
            case Place(number, spot):
                self.books.placed(number, spot, self.now)
            case Refuse(number):
                del self.requests[number]
                self.books.left(number, self.now)
            case Load(spot):
                self.books.load_began(action, self.now)
                self._set(spot, ReplicaState.LOADING, action.base)
            case Move(number, to):
                self.books.moves(number, to, self.now)
            case MakeWay(plan):
                self.books.moving.add(plan)
            case Unload(spot):
                self.books.unload_began(spot)

    def _command(self, choice: int) -> Spot | None:
        spots = sorted(self.books.loading | self.books.unloading)
        return spots[choice % len(spots)] if spots else None

    def _ended(self, spot: Spot, *, loading: bool) -> None:
        if loading:
            self.books.load_ended(spot, self.now)
        else:
            self.books.unload_ended(spot)

    def _set(self, spot: Spot, state: ReplicaState | None, base: str = "") -> None:
        """A replica is in another state, or gone; an adapter's load brings its base where there is none."""
        member = self.members.get(f"worker/{spot.worker_id}")
        if member is None or member.worker is None:
            return
        there = member.worker.replica(spot.model, spot.digest)
        others = [one for one in member.worker.replicas if one is not there]
        if state is None:
            gone = [one for one in others if there and there.carries(one)]
            self._put(member, *(one for one in others if one not in gone))
            return
        if there is None:
            there, others = self._fresh(spot, base, others)
        self._put(member, *others, replace(there, state=state))

    def _fresh(self, spot: Spot, base: str, others: list[ReplicaFacts]) -> tuple[ReplicaFacts, list[ReplicaFacts]]:
        entry = self.models[spot.model]
        if not base:
            return ReplicaFacts(spot.model, spot.digest, ReplicaState.LOADING, entry.checkpoint.bytes + KV), others
        bases = [one for one in others if one.digest == base and not one.base]
        if not bases:
            bases = [ReplicaFacts("", base, ReplicaState.READY, WEIGHTS + KV)]
            others = [*others, *bases]
        size = entry.checkpoint.bytes
        fresh = ReplicaFacts(spot.model, spot.digest, ReplicaState.LOADING, size, base=base, beside=bases[0].model)
        return fresh, others

    def _put(self, member: Member, *replicas: ReplicaFacts) -> None:
        assert member.worker
        fresh = replace(member, worker=replace(member.worker, replicas=replicas))
        self.members = {**self.members, f"worker/{member.id}": fresh}
