"""Emptying workers by moves: who goes, where, in what order, and who is let finish."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mesh.facts import Member
from mesh.requests import MoveKind
from policy.actions import Action, Load, LoadReason, Move, MoveReason, Place, Unload, UnloadReason
from policy.decide import Decision, decide
from policy.knobs import Knobs
from policy.moving import Moving
from policy.rates import Learnt, Quantity, Rate, Rates
from policy.view import Running, View
from tests.policy.scene import REPLICA, at, cluster, model, replica, request, store, worker

NOW = 1000.0
KNOBS = Knobs(moves=True, held_s=10.0)
MODELS = (model("m"), model("n"))
STORE = store("s1", "m@1", "n@1")
FROM, TO = at("w1"), at("w2")
OPEN = worker("w2", replica("m"))


def run(request_id: str = "r", since_s: float = NOW - 1.0, **more: Any) -> Running:
    """A request that runs since then."""
    return Running(request_id, since_s, 10, **more)


def decided(*members: Member, runs: tuple[Running, ...] = (run(),), knobs: Knobs = KNOBS, **more: Any) -> Decision:
    """What is decided at NOW: w1 is to become empty, and these run on its replica of m."""
    on = {FROM: {one.request_id: one for one in runs}} if runs else {}
    w1 = worker("w1", replica("m", running=len(runs)), slots=8)
    facts = replace(cluster([STORE, w1, *members], MODELS), drains=frozenset({"worker/w1", *more.pop("drains", ())}))
    return decide(View(facts, runs=on, placed={FROM: len(runs)}, **more), NOW, knobs)


def moves(decision: Decision) -> list[Action]:
    """Of a decision."""
    return [one for one in decision.actions if isinstance(one, Move)]


def test_what_runs_there_goes_where_its_model_has_a_slot() -> None:
    assert decided(OPEN).actions == (Move("r", TO, MoveKind.KV, MoveReason.DRAIN),)


def test_who_has_most_left_goes_first_and_the_others_follow_one_by_one() -> None:
    runs = (run("old", NOW - 6.0), run("new"), run("older", NOW - 8.0))
    assert [one.request_id for one in moves(decided(OPEN, runs=runs)) if isinstance(one, Move)] == ["new"]
    on_its_way = Moving((), {"new": TO}, {"new": FROM})
    assert decided(OPEN, runs=runs, moving=on_its_way).actions == ()


def test_what_is_sooner_done_than_gone_finishes() -> None:
    slow = replace(KNOBS, copying_s=3.0, computing_s=3.0)
    assert moves(decided(OPEN, knobs=slow))
    assert decided(OPEN, runs=(run(since_s=NOW - 8.0),), knobs=slow).actions == ()


def test_one_that_has_outlived_the_average_is_looked_at_again_when_it_will_for_longer_yet() -> None:
    """An answer of a model whose answers are short goes on for minutes: then it is worth its move."""
    rates = Rates({Rate(Quantity.HELD, "", "m"): Learnt(0.1), Rate(Quantity.HELD, ""): Learnt(0.1)})
    slow = replace(KNOBS, copying_s=0.5, computing_s=0.5)
    waits = decided(OPEN, runs=(run(since_s=NOW - 0.2),), knobs=slow, rates=rates)
    assert waits.actions == ()
    assert waits.look_again_s
    assert NOW < waits.look_again_s < NOW + 3.0
    assert moves(decided(OPEN, runs=(run(since_s=NOW - 4.0),), knobs=slow, rates=rates))


@pytest.mark.parametrize(
    ("there", "more", "why"),
    [
        (worker("w2", replica("m", running=2)), {}, "it has no slot"),
        (OPEN, {"drains": ("worker/w2",)}, "it is to become empty, too"),
        (OPEN, {"distrusted_until_s": {"w2": NOW + 5.0}}, "it could not be reached a moment ago"),
        (OPEN, {"unloading": frozenset({TO})}, "it is about to go"),
        (worker("w2", replica("m", digest="m@0")), {}, "it has another version"),
        (OPEN, {"moving": Moving((), {"x": TO}, {"x": at("w9")})}, "somebody else is on the way there"),
    ],
)
def test_nobody_goes_to_a_replica_that_cannot_take_him(there: Member, more: Mapping[str, Any], why: str) -> None:
    assert not moves(decided(there, **more)), why


def test_a_request_whose_move_has_just_ended_stays_for_a_while() -> None:
    rested = decided(OPEN, runs=(run(moved_s=NOW - 5.0),))
    assert rested.actions == ()
    assert rested.look_again_s == NOW - 5.0 + KNOBS.move_rest_s
    assert moves(decided(OPEN, runs=(run(moved_s=NOW - KNOBS.move_rest_s),)))


def test_where_no_replica_has_a_slot_one_is_loaded_first_if_that_pays() -> None:
    (loaded,) = decided(worker("w2")).actions
    assert loaded == Load(TO, "s1", reason=LoadReason.MOVE)
    assert decided(worker("w2"), loading=frozenset({TO})).actions == ()
    assert decided(worker("w2"), knobs=replace(KNOBS, init_s=9.0)).actions == ()


def test_an_idle_replica_makes_room_for_it() -> None:
    idle = worker("w2", replica("n"))
    found = decided(idle, idle_since_s={at("w2", "n"): NOW})
    assert found.actions == (Unload(at("w2", "n"), UnloadReason.EVICTED),)
    assert found.claims == (TO,)


def test_no_more_is_loaded_than_the_model_may_have() -> None:
    bounded = (replace(MODELS[0], max_replicas=1), MODELS[1])
    full = worker("w2", replica("m", running=2))
    w1 = worker("w1", replica("m", running=1))
    facts = replace(cluster([STORE, w1, full, worker("w3")], bounded), drains=frozenset({"worker/w1"}))
    shown = View(facts, runs={FROM: {"r": run()}}, placed={FROM: 1})
    assert decide(shown, NOW, KNOBS).actions == ()
    assert decide(replace(shown, cluster=replace(facts, models=cluster([], MODELS).models)), NOW, KNOBS).actions


def test_those_who_wait_come_before_those_who_move() -> None:
    one_slot = worker("w2", replica("m"), slots=1)
    found = decided(one_slot, waiting=(request("new", since_s=NOW),))
    assert Place("new", TO) in found.actions
    assert not moves(found)


def test_nobody_moves_where_nobody_would_carry_it_out() -> None:
    assert decided(OPEN, knobs=replace(KNOBS, moves=False)).actions == ()


def test_two_workers_are_emptied_at_once_but_not_into_one() -> None:
    """Each worker sends one, or gets one, at a time."""
    w1, w3 = worker("w1", replica("m", running=1)), worker("w3", replica("m", running=1))
    runs = {at("w1"): {"a": run("a")}, at("w3"): {"c": run("c")}}
    both = frozenset({"worker/w1", "worker/w3"})
    into_one = replace(cluster([STORE, w1, w3, OPEN], MODELS), drains=both)
    assert len(moves(decide(View(into_one, runs=runs, placed={at("w1"): 1, at("w3"): 1}), NOW, KNOBS))) == 1
    two = replace(cluster([STORE, w1, w3, OPEN, worker("w4", replica("m"))], MODELS), drains=both)
    found = moves(decide(View(two, runs=runs, placed={at("w1"): 1, at("w3"): 1}), NOW, KNOBS))
    assert {one.to for one in found if isinstance(one, Move)} == {TO, at("w4")}


def test_an_adapters_requests_move_to_the_adapter_elsewhere() -> None:
    adapter = model("d", weights=2, base="m@1")
    carried = replace(replica("d", size=2, running=1), base="m@1", beside="m")
    there = replace(carried, running=0)
    w1 = worker("w1", replica("m"), carried, memory=REPLICA + 2)
    w2 = worker("w2", replica("m"), there, memory=REPLICA + 2)
    facts = replace(cluster([STORE, w1, w2], (*MODELS, adapter)), drains=frozenset({"worker/w1"}))
    shown = View(facts, runs={at("w1", "d"): {"r": run()}}, placed={at("w1", "d"): 1})
    assert moves(decide(shown, NOW, KNOBS)) == [Move("r", at("w2", "d"), MoveKind.KV, MoveReason.DRAIN)]
