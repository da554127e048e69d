"""Updates from begin to end: whatever comes between, every request is answered, and the newest version stays."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.facts import ModelEntry, ReplicaFacts, ReplicaState
from policy.actions import Load, Place, Unload, Yield
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Spot, View, Waiting
from tests.policy.scene import KV, WEIGHTS, cluster, model, store, worker

KNOBS = Knobs(keep_alive_s=1e6, hold_s=1e6, max_waiting=1000)
DIGESTS = ("m@1", "m@2", "m@3")
STORE = store("s1", *DIGESTS, "n@1")
MOST_SETTLING = 200


def anew(view: View) -> View:
    """The same moment without anything remembered between decisions: all of it is looked at."""
    return View(
        cluster=view.cluster,
        waiting=tuple(view.waiting),
        placed=dict(view.placed),
        loading=frozenset(view.loading),
        unloading=frozenset(view.unloading),
        idle_since_s=dict(view.idle_since_s),
        distrusted_until_s=dict(view.distrusted_until_s),
        unfit_until_s=dict(view.unfit_until_s),
        retired=frozenset(view.retired),
        claims=frozenset(view.claims),
        demand=view.demand,
        short=frozenset(view.short),
        surplus_since_s=dict(view.surplus_since_s),
        runs=view.runs,
        shares=view.shares,
        yielding=view.yielding,
    )


def _earlier(one_s: float | None, other_s: float | None) -> bool:
    """Or at the same moment: a look for nothing costs little, and one that is missed is a wait."""
    return other_s is None or (one_s is not None and one_s <= other_s)


class World:
    """Workers on paper, which do what is decided whenever the test lets them."""

    def __init__(self, memories: list[int], slots: int) -> None:
        self.books = Books()
        self.models: dict[str, ModelEntry] = {name: model(name) for name in ("m", "n")}
        self.replicas: dict[Spot, ReplicaFacts] = {}
        self.waiting: dict[str, Waiting] = {}
        self.running: Counter[Spot] = Counter()
        self.answered: list[Spot] = []
        self.arrived = 0
        self._memories, self._slots, self._now = {f"w{n}": size for n, size in enumerate(memories)}, slots, 0.0

    def update(self, digest: str) -> None:
        """Another version becomes the current one."""
        former = self.models["m"]
        checkpoint = replace(former.checkpoint, digest=digest)
        self.models["m"] = replace(former, checkpoint=checkpoint, previous=former.checkpoint)

    def arrive(self, name: str) -> None:
        """A request comes."""
        self.arrived += 1
        request = Waiting(f"r{self.arrived}", name, self._now)
        self.waiting[request.request_id] = request
        self.books.arrived(request)

    def finish(self, number: int) -> None:
        """One of the answers that run ends."""
        busy = sorted(self.running)
        if busy:
            spot = busy[number % len(busy)]
            self.running -= Counter([spot])
            self.books.left(next(iter(self.books.runs[spot])), self._now)

    def complete(self, number: int) -> None:
        """One of the commands under way ends."""
        under_way = sorted(self.books.loading | self.books.unloading)
        if not under_way:
            return
        spot = under_way[number % len(under_way)]
        if spot in self.books.unloading:
            self.books.unload_ended(spot)
            del self.replicas[spot]
        else:
            self.books.load_ended(spot, self._now)
            self.replicas[spot] = replace(self.replicas[spot], state=ReplicaState.READY)

    def decide(self) -> None:
        """Decides, and begins what was decided. Nobody is ever refused, nothing busy unloaded, no memory used twice."""
        self._now += 1.0
        view = self._view()
        decision = decide(view, self._now, KNOBS)
        same = decide(anew(view), self._now, KNOBS)
        assert (decision.actions, decision.claims) == (same.actions, same.claims)  # what is not touched fares as before
        assert set(decision.again) <= set(same.again)
        assert _earlier(decision.look_again_s, same.look_again_s)
        for action in decision.actions:
            match action:
                case Place(number, spot):
                    self._place(view, number, spot)
                case Load(spot):
                    self.books.load_began(action, self._now)
                    self.replicas[spot] = ReplicaFacts(spot.model, spot.digest, ReplicaState.LOADING, WEIGHTS + KV)
                case Yield(spots, to):
                    self.books.yielding.add(spots, to)
                case Unload(spot):
                    assert not self.running[spot]
                    self.books.unload_began(spot)
                case _:
                    raise AssertionError(f"{action} though its model can be had")
        self.books.claimed(decision.claims)
        self.books.look_again(decision.again)
        self._end_unwanted(view)
        for worker_id, memory in self._memories.items():
            assert sum(r.bytes for spot, r in self.replicas.items() if spot.worker_id == worker_id) <= memory

    def settle(self) -> None:
        """Lets everything that is under way come to its end, however long that takes."""
        for _ in range(MOST_SETTLING):
            self.decide()
            if not (self.books.loading or self.books.unloading or self.running or self.waiting):
                return
            self.complete(0)
            self.finish(0)
        raise AssertionError(f"{self.waiting} wait, {self.books} is under way")

    def _place(self, view: View, number: str, spot: Spot) -> None:
        assert self.replicas[spot].state is ReplicaState.READY
        current = self.models[spot.model]
        assert spot.digest == current.checkpoint.digest or not view.answers(current)
        del self.waiting[number]
        self.books.placed(number, spot, self._now)
        self.running[spot] += 1
        self.answered.append(spot)

    def _end_unwanted(self, view: View) -> None:
        """As the scheduler does."""
        for spot in sorted(self.books.loading):
            entry = self.models[spot.model]
            waited_for = any(request.model == spot.model for request in self.waiting.values())
            if spot.digest != entry.checkpoint.digest or not (waited_for or view.former(entry)):
                self.books.load_ended(spot, self._now)
                del self.replicas[spot]

    def _view(self) -> View:
        members = [STORE]
        for worker_id, memory in self._memories.items():
            here = [
                replace(replica, running=self.running[spot])
                for spot, replica in sorted(self.replicas.items())
                if spot.worker_id == worker_id
            ]
            members.append(worker(worker_id, *here, memory=memory, slots=self._slots))
        facts = cluster(members, self.models.values())
        self.books.observe(facts)
        return self.books.view(self._now)


STEPS = st.one_of(
    st.tuples(st.just("arrive"), st.sampled_from(["m", "m", "m", "n"])),
    st.tuples(st.just("finish"), st.integers(0, 5)),
    st.tuples(st.just("complete"), st.integers(0, 5)),
    st.tuples(st.just("update"), st.sampled_from(DIGESTS)),
)
MEMORIES = st.lists(st.integers(WEIGHTS + KV, 3 * (WEIGHTS + KV)), min_size=1, max_size=3)


@settings(max_examples=200, deadline=None)
@given(MEMORIES, st.integers(1, 3), st.lists(STEPS, max_size=60))
def test_every_request_is_answered_and_in_the_end_by_the_newest_version(
    memories: list[int], slots: int, steps: list[tuple[str, str | int]]
) -> None:
    world = World(memories, slots)
    for name, value in steps:
        getattr(world, name)(value)
        world.decide()
    world.settle()
    assert len(world.answered) == world.arrived
    newest = world.models["m"].checkpoint.digest
    world.arrive("m")
    world.settle()
    assert world.answered[-1].digest == newest
    assert {spot.digest for spot in world.replicas if spot.model == "m"} == {newest}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3), st.lists(STEPS, max_size=60))
def test_with_room_for_both_nobody_waits_for_an_update(slots: int, steps: list[tuple[str, str | int]]) -> None:
    """Unless every slot of the former version is taken."""
    world = World([4 * (WEIGHTS + KV)], slots)
    world.arrive("m")
    world.settle()
    for name, value in steps:
        if value == "n":
            continue
        before = set(world.waiting)
        getattr(world, name)(value)
        world.decide()
        fresh = set(world.waiting) - before
        assert not fresh or max(world.running.values()) >= slots
