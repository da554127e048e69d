"""What holds of every decision that may move requests, whatever the cluster looks like."""

from collections import Counter
from dataclasses import replace
from types import MappingProxyType

from hypothesis import find, given, settings
from hypothesis import strategies as st

from mesh.facts import Kind, Member, Tier
from policy.actions import Load, LoadReason, MakeWay, Move, Place
from policy.decide import decide
from policy.view import Running, View
from tests.policy.scene import REPLICA, cluster, model, replica, request, store, worker
from tests.policy.test_decide_properties import KNOBS, NOW, THOROUGH, committed

RATES = MappingProxyType({Tier.ORIGIN: 0.1, Tier.DISK: 1.0, Tier.DRAM: 10.0, Tier.DEVICE: 1e12})
MOVING = replace(KNOBS, moves=True, bytes_per_s=RATES, prefill_token_s=0.001)


OTHERS = ("a", "b", "c")
NEAR = store("s1", "m@1", node="n0", tier=Tier.DRAM)
ALL = store("s2", "m@1", *(f"{name}@1" for name in OTHERS), node="n1")


@st.composite
def workers(draw: st.DrawFn, number: int) -> Member:
    """A worker of one of two nodes that others use, or nobody yet."""
    memory = draw(st.integers(1, 3)) * REPLICA
    names = draw(st.lists(st.sampled_from(OTHERS), unique=True, max_size=memory // REPLICA))
    replicas = [replica(name, running=draw(st.integers(0, 2))) for name in names]
    return worker(f"w{number}", *replicas, node=f"n{number % 2}", memory=memory, slots=3)


@st.composite
def running(draw: st.DrawFn) -> View:
    """Some wait for m, which lies in the memory of one node; it is known what runs where."""
    taken = worker("w0", replica("a", running=1), node="n0", slots=3)
    members = [taken, *(draw(workers(number)) for number in range(1, draw(st.integers(2, 5))))]
    waiting = tuple(request(f"r{n}", draw(st.sampled_from(["m", "m", "a"])), since_s=NOW) for n in range(3))
    models = [model(name) for name in ("m", *OTHERS)]
    view = View(cluster([NEAR, ALL, *members], models), waiting=waiting)
    moved_s = st.sampled_from([None, None, NOW - 1.0])
    runs = {
        seat.spot: {
            f"{seat.spot}#{n}": Running("", NOW - 1.0, 10, moved_s=draw(moved_s)) for n in range(view.busy(seat))
        }
        for seat in view.seats()
    }
    named = {spot: {key: replace(run, request_id=key) for key, run in each.items()} for spot, each in runs.items()}
    named = {spot: each for spot, each in named.items() if each}
    return replace(view, runs=named, placed={spot: len(each) for spot, each in named.items()})


@THOROUGH
@given(running())
def test_requests_move_only_where_their_model_answers_and_has_slots_for_them(view: View) -> None:
    came: Counter[object] = Counter()
    for action in decide(view, NOW, MOVING).actions:
        if isinstance(action, Move):
            goal = view.replicas.seat(action.to)
            source = next(spot for spot in view.runs if action.request_id in view.runs[spot])
            assert goal
            assert view.settled(goal)
            assert (source.model, source.digest) == (action.to.model, action.to.digest)
            assert source.worker_id != action.to.worker_id
        if isinstance(action, Move | Place):
            spot = action.to if isinstance(action, Move) else action.spot
            seat = view.replicas.seat(spot)
            came[spot] += 1
            assert seat
            assert view.crowd(seat) + came[spot] <= seat.slots


@THOROUGH
@given(running())
def test_no_worker_takes_part_in_two_plans_and_no_memory_is_promised_twice(view: View) -> None:
    decision = decide(view, NOW, MOVING)
    plans = [action.evacuation for action in decision.actions if isinstance(action, MakeWay)]
    parts = Counter(worker_id for plan in plans for worker_id in plan.workers)
    assert set(parts.values()) <= {1}
    loads = frozenset(action.spot for action in decision.actions if isinstance(action, Load))
    after = replace(view, loading=frozenset({*view.loading, *loads}))
    for worker_id in {spot.worker_id for spot in loads}:
        assert committed(after, view.cluster.members[f"{Kind.WORKER}/{worker_id}"]) >= 0


@THOROUGH
@given(running())
def test_every_leg_leads_to_a_replica_or_to_a_load_and_the_view_stays_as_it_was(view: View) -> None:
    decision = decide(view, NOW, MOVING)
    loads = {
        action.spot for action in decision.actions if isinstance(action, Load) and action.reason is LoadReason.MOVE
    }
    legs = [leg for one in decision.actions if isinstance(one, MakeWay) for leg in one.evacuation.legs]
    assert loads <= {leg.goal for leg in legs}
    assert all(leg.goal in loads or view.replicas.seat(leg.goal) for leg in legs)
    assert view.moving.evacuations == ()
    assert decide(view, NOW, MOVING) == decision


def test_some_of_these_moments_make_somebody_move() -> None:
    """Else what holds of moves would hold of nothing."""

    def moves(view: View) -> bool:
        return any(isinstance(action, MakeWay) for action in decide(view, NOW, MOVING).actions)

    untimed = settings(max_examples=2000, derandomize=True, database=None, deadline=None)
    assert moves(find(running(), moves, settings=untimed))
