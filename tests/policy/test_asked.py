"""Where a running request goes on that somebody wants moved."""

from dataclasses import replace
from typing import Any

from mesh.facts import Member, ModelEntry, ReplicaState
from mesh.requests import MoveKind
from policy.actions import Load, LoadReason, Unload, UnloadReason
from policy.asked import Obstacle, Step, quicker_kind, step
from policy.knobs import Knobs
from policy.view import Running, View
from tests.policy.scene import REPLICA, at, cluster, model, replica, store, worker

NOW = 1000.0
M, N = model("m"), model("n")
STORE = store("s1", "m@1", "n@1")
BUSY = worker("w1", replica("m", running=1))


def towards(*members: Member, to: str = "", models: tuple[ModelEntry, ...] = (M, N), **rest: Any) -> Step:
    """The next step of the request that runs on w1."""
    return step(View(cluster([BUSY, *members, STORE], models), **rest), at("w1"), to, NOW, Knobs())


def test_it_goes_to_the_least_busy_replica_that_has_a_slot() -> None:
    two, three = worker("w2", replica("m", running=1)), worker("w3", replica("m"))
    assert towards(two, three) == Step(goal=at("w3"))
    assert towards(two, three, placed={at("w3"): 2}) == Step(goal=at("w2"))
    assert towards(two, three, to="w2") == Step(goal=at("w2"))


def test_a_full_worker_takes_it_only_if_any_other_will_do() -> None:
    full = worker("w2", replica("m", running=2))
    assert towards(full, to="w2") == Step(obstacle=Obstacle.FULL)
    assert towards(full, worker("w3")) == Step(actions=(Load(at("w3"), "s1", reason=LoadReason.MOVE),))


def test_it_waits_for_a_replica_that_comes_or_goes_there() -> None:
    coming = worker("w2", replica("m", state=ReplicaState.LOADING))
    assert towards(coming, to="w2") == Step()
    assert towards(worker("w2"), to="w2", loading={at("w2")}) == Step()
    assert towards(worker("w2", replica("m")), to="w2", unloading={at("w2")}) == Step()


def test_room_is_made_of_what_idles_and_of_nothing_else() -> None:
    idle, busy = worker("w2", replica("n")), worker("w2", replica("n", running=1))
    made = towards(idle, to="w2")
    assert (made.actions, made.claims) == ((Unload(at("w2", "n"), UnloadReason.EVICTED),), (at("w2"),))
    assert towards(busy, to="w2") == Step(obstacle=Obstacle.NO_ROOM)
    leaving = worker("w2", replica("n", state=ReplicaState.DRAINING))
    assert towards(leaving, to="w2") == Step(claims=(at("w2"),))


def test_the_way_that_is_thought_to_be_quicker_is_taken_unless_told() -> None:
    """A prompt is computed at a millisecond a token, and 64 bytes of KV a token cross at 500 MB a second."""
    two = worker("w2", replica("m"), node="n2")
    for tokens, kind in ((1, MoveKind.TOKENS), (10_000, MoveKind.KV)):
        runs = {at("w1"): {"r": Running("r", NOW, tokens)}}
        seen = View(
            cluster([BUSY, two, STORE], [replace(M, checkpoint=replace(M.checkpoint, max_context=0))]), runs=runs
        )
        assert quicker_kind(seen, at("w1"), at("w2"), "r", now=NOW, knobs=Knobs()) is kind


def test_a_worker_that_could_not_be_reached_gets_no_load() -> None:
    assert towards(worker("w2"), to="w2", distrusted_until_s={"w2": NOW + 1}) == Step(obstacle=Obstacle.NO_ROOM)


def test_a_version_that_the_catalogue_has_moved_on_from_is_loaded_no_more() -> None:
    newer = (model("m", digest="m@2", previous="m@1"), N)
    assert towards(worker("w2"), models=newer) == Step(obstacle=Obstacle.SUPERSEDED)
    there = worker("w2", replica("m"), memory=2 * REPLICA)
    assert towards(there, models=newer) == Step(goal=at("w2"))
    assert towards(worker("w2"), models=(N,)) == Step(obstacle=Obstacle.SUPERSEDED)
