"""Explanations: the policy's own answer in words, and every alternative with its costs or its obstacle."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.explanation import Alternative, HeldRequest, Way
from mesh.facts import Member, Priority, ReplicaState, Tier
from policy.actions import Load, Place, Unload
from policy.alternatives import SHOWN
from policy.decide import decide
from policy.explain import explain
from policy.knobs import Knobs
from policy.view import Spot, View, Waiting
from tests.policy import test_migration
from tests.policy.scene import REPLICA, at, cluster, fence, model, replica, request, store, worker

KNOBS = Knobs(held_s=10.0)
NOW = 50.0
STORE = store("s1", "m@1", "n@1")
MODELS = (model("m"), model("n"))


def view_of(*members: Member, waiting: tuple[Waiting, ...] = (), **more: Any) -> View:
    """A moment, at which every idle replica has been so since 0."""
    idle = {Spot(w.id, r.model, r.digest): 0.0 for w in members if w.worker for r in w.worker.replicas}
    return View(cluster([*members, STORE], MODELS), waiting, idle_since_s=idle, **more)


def newcomer(view: View) -> HeldRequest:
    """What is said of a request that came now."""
    return explain(view, MODELS[0], NOW, KNOBS)[-1]


def ways(held: HeldRequest) -> list[tuple[Way, str, bool]]:
    """Of each alternative: what, where, and whether it is taken."""
    return [(one.way, one.worker_id, one.chosen) for one in held.alternatives]


def at_worker(held: HeldRequest, worker_id: str) -> Alternative:
    """The one alternative there."""
    (one,) = [one for one in held.alternatives if one.worker_id == worker_id]
    return one


def test_an_open_slot_is_taken_and_a_load_elsewhere_would_cost_more() -> None:
    told = newcomer(view_of(worker("w1", replica("m")), worker("w2")))
    assert ways(told) == [(Way.SLOT, "w1", True), (Way.LOAD, "w2", False)]
    assert told.why == "it takes a slot on w1"
    slot, load = (one.estimate for one in told.alternatives)
    assert slot
    assert load
    assert slot.mean_s < load.mean_s == pytest.approx(load.disk_s + load.init_s)


def test_free_memory_is_loaded_into_and_what_an_eviction_would_cost_is_said_too() -> None:
    told = newcomer(view_of(worker("w1", replica("n")), worker("w2")))
    assert ways(told) == [(Way.LOAD, "w2", True), (Way.EVICT, "w1", False)]
    evict = at_worker(told, "w1")
    assert evict.evicts == ("n",)
    assert evict.estimate
    assert evict.estimate.device_queue_s == KNOBS.unload_s


def test_full_replicas_are_waited_for_as_long_as_those_before_take() -> None:
    waiting = tuple(request(f"r{n}", since_s=40.0) for n in range(3))
    first, second, third, last = explain(
        view_of(worker("w1", replica("m", running=2)), waiting=waiting), MODELS[0], NOW, KNOBS
    )
    assert (first.number, first.position, first.waited_s, last.number, last.position) == ("r0", 0, 10.0, "", 3)
    assert first.why == "it waits for a slot: all replicas are full, and no worker has room for another"
    means = [one.alternatives[0].estimate for one in (first, second, third, last)]
    assert [mean and mean.device_queue_s for mean in means] == [pytest.approx(5.0 * n) for n in (1, 2, 3, 4)]
    assert ways(first) == [(Way.WAIT, "w1", True)]


def test_a_load_under_way_is_joined() -> None:
    loading = worker("w1", replica("m", state=ReplicaState.LOADING))
    told = newcomer(view_of(loading, waiting=(request("r", since_s=49.0),), loading=frozenset([at("w1")])))
    assert ways(told) == [(Way.JOIN, "w1", True)]
    assert told.why == "it waits for the load on w1"
    assert at_worker(told, "w1").estimate is None  # nobody saw it begin


def test_so_is_one_that_the_facts_do_not_show_yet() -> None:
    told = newcomer(view_of(worker("w1"), waiting=(request("r", since_s=49.0),), loading=frozenset([at("w1")])))
    assert ways(told) == [(Way.JOIN, "w1", True)]


@pytest.mark.parametrize(
    ("member", "more", "obstacle"),
    [
        (worker("w2", memory=REPLICA - 1), {}, f"it has {REPLICA - 1} bytes of memory, and {REPLICA} are needed"),
        (worker("w2", replica("n", running=1)), {}, "it has no room, and too little is idle"),
        (worker("w2"), {"distrusted_until_s": {"w2": 60.0}}, "it could not be reached a moment ago"),
        (replace(worker("w2"), worker=None), {}, "it has not said yet what it has"),
    ],
)
def test_what_cannot_be_says_why_and_comes_last(member: Member, more: dict[str, Any], obstacle: str) -> None:
    told = newcomer(view_of(worker("w1", replica("m")), member, **more))
    assert ways(told)[0] == (Way.SLOT, "w1", True)
    assert at_worker(told, "w2").obstacle == obstacle


def test_a_worker_that_has_just_failed_a_request_says_so() -> None:
    waiting = (replace(request("r"), excluded=frozenset([fence("w1")])),)
    told, _ = explain(view_of(worker("w1", replica("m")), waiting=waiting), MODELS[0], NOW, KNOBS)
    assert at_worker(told, "w1").obstacle == "it has just failed this request"


def test_each_sees_what_is_done_for_those_before_it() -> None:
    waiting = (request("r0"), request("r1"))
    first, second, _ = explain(
        view_of(worker("w1", replica("m"), slots=1), worker("w2"), waiting=waiting), MODELS[0], NOW, KNOBS
    )
    assert (first.why, second.why) == ("it takes a slot on w1", "the model is loaded on w2")


def test_they_are_told_of_in_the_order_in_which_they_are_served() -> None:
    low, plain = replace(request("low", since_s=47.0), priority=Priority.LOW), request("plain", since_s=48.0)
    waiting = (low, plain, replace(request("high", since_s=49.0), priority=Priority.HIGH))
    told = explain(view_of(worker("w1", replica("m", running=2)), waiting=waiting), MODELS[0], NOW, KNOBS)
    assert [held.number for held in told] == ["high", "plain", "low", ""]


@pytest.mark.parametrize(
    "members",
    [
        (worker("w1", replica("m")), worker("w2")),
        (worker("w1", replica("n")), worker("w2")),
        (worker("w1", replica("n")), worker("w2", replica("n", running=1))),
        (worker("w1", replica("m", running=2)),),
    ],
    ids=["slot", "load", "evict", "wait"],
)
def test_what_is_said_is_what_is_decided(members: tuple[Member, ...]) -> None:
    waiting = (request("r", since_s=NOW),)
    told, _ = explain(view_of(*members, waiting=waiting), MODELS[0], NOW, KNOBS)
    chosen = [(one.way, one.worker_id) for one in told.alternatives if one.chosen]
    ways_of = {Place: Way.SLOT, Load: Way.LOAD, Unload: Way.EVICT}
    actions = decide(view_of(*members, waiting=waiting), NOW, KNOBS).actions
    decided = [(ways_of[type(one)], one.spot.worker_id) for one in actions if isinstance(one, Place | Load | Unload)]
    assert chosen == (decided or [(Way.WAIT, "w1")])


def test_an_explanation_leaves_the_view_as_it_was() -> None:
    members = (worker("w1", replica("m"), slots=1), worker("w2"))
    view = view_of(*members, waiting=(request("r0"), request("r1")))
    before = decide(view, NOW, KNOBS)
    explain(view, MODELS[0], NOW, KNOBS)
    assert decide(view, NOW, KNOBS) == before


def test_nearer_bytes_cost_less() -> None:
    near = store("s2", "m@1", node="n2", tier=Tier.DRAM)
    view = View(cluster([worker("w1"), worker("w2", node="n2"), STORE, near], MODELS), ())
    told = newcomer(view)
    assert ways(told) == [(Way.LOAD, "w2", True), (Way.LOAD, "w1", False)]


def test_what_a_move_would_win_is_said_whether_or_not_it_is_made() -> None:
    view = test_migration.view(test_migration.BUSY, test_migration.FREE)
    knobs = test_migration.KNOBS
    moved, _ = explain(view, MODELS[0], test_migration.NOW, knobs)
    how = "of other 1 by copying KV, in 0.02 s (a copy is quicker beyond 1 tokens); others would pay 0.11 s"
    assert moved.why == f"what runs on w1 is to go on elsewhere, to make room there: {how}"
    (move,) = [one for one in moved.alternatives if one.way is Way.MOVE]
    assert (move.worker_id, move.chosen, move.obstacle) == ("w1", True, "")
    assert move.estimate
    assert move.estimate.mean_s == pytest.approx(move.estimate.device_queue_s + move.estimate.dram_s)
    stays, _ = explain(view, MODELS[0], test_migration.NOW, replace(knobs, moves=False))
    (off,) = [one for one in stays.alternatives if one.way is Way.MOVE]
    assert (off.chosen, off.obstacle, off.estimate) == (False, f"moves are off; {how}", move.estimate)
    assert stays.why == "the model is loaded on w2"


def test_of_a_large_cluster_no_more_is_said_than_anybody_reads_and_what_is_taken_is_among_it() -> None:
    crowded = [worker(f"w{n}", replica("m", running=1), slots=3) for n in range(100, 200)]
    idle, small = worker("w999", replica("m"), slots=3), [worker(f"w{n}", memory=1) for n in range(300, 400)]
    told = newcomer(view_of(*crowded, idle, *small))
    assert told.why == "it takes a slot on w999"
    assert [one.worker_id for one in told.alternatives if one.chosen] == ["w999"]
    assert len(told.alternatives) == 2 * SHOWN
