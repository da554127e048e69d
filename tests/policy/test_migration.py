"""Making way for a version by moves: when it pays, its steps, and how a plan ends. Weights take 10 bytes."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from mesh.facts import Member, ReplicaState, Tier
from mesh.requests import MoveKind
from policy.actions import Action, Load, LoadReason, MakeWay, Move, Unload, UnloadReason
from policy.books import Books
from policy.decide import decide
from policy.evacuation import stands
from policy.knobs import Knobs
from policy.moving import Evacuation, Leg, Moving
from policy.view import Running, View
from tests.policy.scene import REPLICA, at, cluster, model, replica, request, store, worker

RATES = MappingProxyType({Tier.ORIGIN: 0.5, Tier.DISK: 1.0, Tier.DRAM: 10.0, Tier.DEVICE: 1e12})
KNOBS = Knobs(bytes_per_s=RATES, init_s=0.0, moves=True, prefill_token_s=0.01, token_s=0.1)
NOW = 1000.0
RUNNING = Running("old", NOW - 1.0, prompt_tokens=10)
MODELS = (model("m"), model("other"))
NEAR = store("s1", "m@1", node="n1", tier=Tier.DRAM)  # m starts in 1 s on n1, in 10 s on n2; the other in 1 s on n2
FAR = replace(
    store("s2", "m@1", node="n2"),
    store=replace(
        store("s2").store,  # type: ignore[arg-type]
        checkpoints=(
            *store("s2", "m@1").store.checkpoints,  # type: ignore[union-attr]
            *store("s2", "other@1", tier=Tier.DRAM).store.checkpoints,  # type: ignore[union-attr]
        ),
    ),
)
BUSY = worker("w1", replica("other", running=1), node="n1")
FREE = worker("w2", node="n2")
LEG = Leg(at("w1", "other"), at("w2", "other"))
PLAN = Evacuation(at("w1"), (LEG,), 1.0, NOW + 22.0)


def view(*members: Member, running: Running | None = RUNNING, plan: Evacuation | None = None, **rest: Any) -> View:
    """One request waits for m; unless told, one runs on w1's replica of the other model."""
    rest.setdefault("waiting", (request("r", since_s=NOW),))
    moving = Moving((plan,) if plan else ())
    runs = {LEG.source: {running.request_id: running}} if running else {}
    return View(cluster([NEAR, FAR, *members], MODELS), moving=moving, runs=runs, **rest)


def actions(*members: Member, knobs: Knobs = KNOBS, **rest: Any) -> tuple[Action, ...]:
    """What is decided at NOW."""
    return decide(view(*members, **rest), NOW, knobs).actions


def test_what_runs_on_the_nearest_worker_is_to_go_on_elsewhere_and_is_loaded_there_first() -> None:
    made, loaded = actions(BUSY, FREE)
    assert isinstance(made, MakeWay)
    assert (made.evacuation.spot, made.evacuation.legs) == (at("w1"), (LEG,))
    assert loaded == Load(LEG.goal, "s2", reason=LoadReason.MOVE)


def test_where_the_other_model_is_loaded_already_its_requests_move_at_once() -> None:
    made, moved = actions(BUSY, worker("w2", replica("other"), node="n2", memory=2 * REPLICA))
    assert isinstance(made, MakeWay)
    assert moved == Move("old", LEG.goal, MoveKind.KV)


def test_while_the_goal_loads_nobody_moves_and_the_version_is_loaded_nowhere_else() -> None:
    assert actions(BUSY, FREE, worker("w3", node="n2"), plan=PLAN, loading=frozenset({LEG.goal})) == ()


def test_when_the_goal_answers_the_requests_move_and_new_ones_go_there() -> None:
    ready = worker("w2", replica("other"), node="n2")
    new = request("new", "other", since_s=NOW)
    found = actions(BUSY, ready, plan=PLAN, waiting=(request("r", since_s=NOW), new))
    assert Move("old", LEG.goal, MoveKind.KV) in found
    assert {one.spot for one in found if hasattr(one, "request_id") and hasattr(one, "spot")} == {LEG.goal}


def test_no_more_move_than_the_goal_has_slots_for() -> None:
    full = worker("w2", replica("other", running=2), node="n2")
    assert not [one for one in actions(BUSY, full, plan=PLAN) if isinstance(one, Move)]


def test_those_who_leave_a_worker_follow_one_another() -> None:
    """The next goes when the one before has come, for each worker sends one, or gets one, at a time."""
    ready = worker("w2", replica("other"), node="n2")
    both = {LEG.source: {number: replace(RUNNING, request_id=number) for number in ("old", "older")}}
    shown = replace(view(worker("w1", replica("other", running=2), node="n1"), ready, plan=PLAN), runs=both)
    (first,) = decide(shown, NOW, KNOBS).actions
    assert first == Move("old", LEG.goal, MoveKind.KV)
    under_way = replace(shown, moving=Moving((PLAN,), {"old": LEG.goal}, {"old": LEG.source}))
    assert decide(under_way, NOW, KNOBS).actions == ()


@pytest.mark.parametrize(("link", "kind"), [(1e9, MoveKind.KV), (1.0, MoveKind.TOKENS)])
def test_each_goes_in_the_way_that_is_quicker(link: float, kind: MoveKind) -> None:
    ready = worker("w2", replica("other"), node="n2")
    assert actions(BUSY, ready, plan=PLAN, knobs=replace(KNOBS, kv_bytes_per_s=link)) == (Move("old", LEG.goal, kind),)


def test_a_request_on_its_way_is_not_asked_again() -> None:
    ready = worker("w2", replica("other"), node="n2")
    on_its_way = replace(RUNNING, moved_s=NOW - 1.0)
    assert not [one for one in actions(BUSY, ready, plan=PLAN, running=on_its_way) if isinstance(one, Move)]


def test_what_is_left_is_evicted_and_then_the_version_is_loaded() -> None:
    left = worker("w1", replica("other"), node="n1")
    moved = worker("w2", replica("other", running=1), node="n2")
    found = actions(left, moved, plan=PLAN, running=None, idle_since_s={LEG.source: NOW})
    assert found == (Unload(LEG.source, UnloadReason.EVICTED),)
    assert actions(worker("w1", node="n1"), moved, plan=PLAN, running=None) == (Load(at("w1"), "s1"),)


def test_nothing_moves_where_nobody_would_carry_it_out() -> None:
    assert actions(BUSY, FREE, knobs=replace(KNOBS, moves=False)) == (Load(at("w2"), "s2"),)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"move_wins_s": 8.5}, "the win is too small"),
        ({"move_wins_share": 0.9}, "the win is too small a part"),
        ({"prefill_token_s": 1.0}, "computing its tokens again takes longer than the version's own load"),
    ],
)
def test_nothing_moves_where_it_costs_more_than_it_wins(change: dict[str, float], why: str) -> None:
    knobs = replace(KNOBS, **change)  # type: ignore[arg-type]
    slow = tuple(replace(one, checkpoint=replace(one.checkpoint, kv_bytes_per_token=0)) for one in MODELS)
    shown = replace(view(BUSY, FREE), cluster=cluster([NEAR, FAR, BUSY, FREE], slow))
    assert decide(shown, NOW, knobs).actions == (Load(at("w2"), "s2"),), why


def test_a_request_that_moved_a_moment_ago_stays() -> None:
    rested = replace(RUNNING, moved_s=NOW - KNOBS.move_rest_s)
    assert isinstance(actions(BUSY, FREE, running=rested)[0], MakeWay)
    moved = replace(RUNNING, moved_s=NOW - KNOBS.move_rest_s + 1.0)
    assert actions(BUSY, FREE, running=moved) == (Load(at("w2"), "s2"),)


def test_what_cannot_go_on_elsewhere_keeps_its_replica_where_it_is() -> None:
    found = actions(BUSY, FREE, running=replace(RUNNING, stays=True))
    assert not any(isinstance(action, MakeWay | Move) for action in found)


def test_a_worker_takes_part_in_one_plan_at_a_time() -> None:
    elsewhere = Evacuation(at("w9", "third"), (Leg(at("w9", "x"), at("w1", "x")),), 1.0, NOW + 10.0)
    assert actions(BUSY, FREE, plan=elsewhere) == (Load(at("w2"), "s2"),)


def test_who_runs_where_nobody_knows_of_all_does_not_move() -> None:
    two = worker("w1", replica("other", running=2), node="n1")
    assert actions(two, FREE) == (Load(at("w2"), "s2"),)


@pytest.mark.parametrize("coming", [frozenset({LEG.goal}), frozenset()])
def test_a_plan_stands_while_its_goal_is_coming(coming: frozenset[Any]) -> None:
    assert stands(view(BUSY, FREE, plan=PLAN, loading=coming), PLAN, NOW) is bool(coming)


def test_a_plan_stands_while_its_goal_answers_and_once_its_source_is_empty() -> None:
    ready = worker("w2", replica("other"), node="n2")
    assert stands(view(BUSY, ready, plan=PLAN), PLAN, NOW)
    assert not stands(view(BUSY, worker("w2", replica("other", state=ReplicaState.DRAINING), node="n2")), PLAN, NOW)
    assert stands(view(worker("w1", replica("other")), FREE, running=None, plan=PLAN), PLAN, NOW)


def test_the_books_forget_a_plan_that_nobody_waits_for_or_whose_time_is_up() -> None:
    books = Books()
    books.observe(cluster([NEAR, FAR, BUSY, worker("w2", replica("other"), node="n2")], MODELS))
    books.arrived(request("r"))
    books.moving.add(PLAN)
    assert books.view(NOW).moving.evacuations == (PLAN,)
    assert books.view(PLAN.until_s).moving.evacuations == ()
    books.moving.add(PLAN)
    books.left("r", 20.0)
    assert books.view(NOW).moving.evacuations == ()


def test_a_decision_names_the_moment_at_which_a_plan_is_given_up() -> None:
    assert decide(view(BUSY, FREE, plan=PLAN, loading=frozenset({LEG.goal})), NOW, KNOBS).look_again_s == PLAN.until_s


def test_on_its_way_a_request_has_a_place_here_and_one_there() -> None:
    books, there = Books(), worker("w2", replica("other"), node="n2")
    books.observe(cluster([NEAR, FAR, BUSY, there], MODELS))
    books.arrived(request("old", "other"))
    books.placed("old", LEG.source, NOW)
    books.moves("old", LEG.goal, NOW + 1.0)
    both = books.view(NOW + 1.0)
    assert both.placed == {LEG.source: 1, LEG.goal: 1}
    assert [one.moved_s for one in both.running(LEG.source)] == [NOW + 1.0]
    books.moved("old", LEG.goal, NOW + 2.0)
    gone = books.view(NOW + 2.0)
    assert gone.placed == {LEG.goal: 1}
    assert [one.request_id for one in gone.running(LEG.goal)] == ["old"]


def test_a_request_stays_where_it_is_when_its_goal_is_gone_or_it_ends() -> None:
    books, there = Books(), worker("w2", replica("other"), node="n2")
    books.observe(cluster([NEAR, FAR, BUSY, there], MODELS))
    books.arrived(request("old", "other"))
    books.placed("old", LEG.source, NOW)
    books.moves("old", LEG.goal, NOW)
    books.observe(cluster([NEAR, FAR, BUSY, FREE], MODELS))
    assert books.view(NOW).placed == {LEG.source: 1}
    books.observe(cluster([NEAR, FAR, BUSY, there], MODELS))
    books.moves("old", LEG.goal, NOW)
    books.left("old", NOW)
    assert books.view(NOW).placed == {}


def test_waiting_for_a_slot_counts_as_a_way_of_its_own() -> None:
    """m's own replica is full, and a place there is soon free: nobody makes way for another one."""
    full = worker("w3", replica("m", running=2), node="n3")
    taken = worker("w2", replica("third", running=1), node="n2")
    ready = worker("w4", replica("other"), node="n4")
    quick, slow = replace(KNOBS, held_s=1.0), replace(KNOBS, held_s=30.0)
    assert not [one for one in actions(BUSY, taken, full, ready, knobs=quick) if isinstance(one, MakeWay)]
    assert [one for one in actions(BUSY, taken, full, ready, knobs=slow) if isinstance(one, MakeWay)]


def test_a_request_that_a_worker_has_just_failed_makes_nobody_move() -> None:
    waiting = (request("r", since_s=NOW, excluded=["w3"]),)
    assert actions(BUSY, FREE, waiting=waiting) == (Load(at("w2"), "s2"),)


def test_nothing_moves_to_a_worker_that_is_to_become_empty() -> None:
    ready = worker("w2", replica("other"), node="n2")
    shown = view(BUSY, ready)
    drained = replace(shown, cluster=replace(shown.cluster, drains=frozenset({"worker/w2"})))
    assert decide(drained, NOW, KNOBS).actions == (Unload(LEG.goal, UnloadReason.DRAINED),)
