"""Where each of the simple policies puts a model: the same moments, different workers."""

import pytest

from mesh.facts import ReplicaState
from policy.actions import Load, Place, RefusalReason, Refuse, Unload, UnloadReason
from sim.baselines.best_free import BestFree
from sim.baselines.keep_alive_lru import KEEP_ALIVE_S, KeepAliveLru
from sim.baselines.least_loaded import LeastLoaded
from sim.baselines.locality_wait import PATIENCE_S, LocalityWait
from sim.baselines.random import Random
from sim.baselines.round_robin import RoundRobin
from sim.policy import ClusterState, Policy, spot
from tests.sim.baselines.scene import node, resident, running, state, worker

FAR = node("n0", worker("n0-w0"))
NEAR = node("n1", worker("n1-w0", memory=24), disk="a")


def loads(policy: Policy, moment: ClusterState) -> list[str]:
    return [action.spot.worker_id for action in policy.decide(moment, 0.0).actions if isinstance(action, Load)]


def unloads(policy: Policy, moment: ClusterState, now: float = 0.0) -> list[Unload]:
    return [action for action in policy.decide(moment, now).actions if isinstance(action, Unload)]


def test_the_best_free_worker_is_the_one_that_is_closest_to_the_checkpoint() -> None:
    assert loads(BestFree(), state(FAR, NEAR, waiting="a")) == ["n1-w0"]


def test_the_least_loaded_worker_is_taken_however_far_it_is() -> None:
    used = node("n1", worker("n1-w0", resident("n1-w0", "b", running("9")), memory=24), disk="a")
    assert loads(BestFree(), state(FAR, used, waiting="a")) == ["n1-w0"]
    assert loads(LeastLoaded(), state(FAR, used, waiting="a")) == ["n0-w0"]


def test_workers_take_turns_and_so_do_replicas() -> None:
    policy = RoundRobin()
    assert [loads(policy, state(FAR, NEAR, waiting=name)) for name in "abc"] == [["n0-w0"], ["n1-w0"], ["n0-w0"]]
    both = [node(f"n{i}", worker(f"n{i}-w0", resident(f"n{i}-w0", "a"))) for i in range(2)]
    placed = [policy.decide(state(*both, waiting="a"), 0.0).actions[0] for _ in range(3)]
    assert placed[0] != placed[1]
    assert placed[0] == placed[2]


def test_random_comes_to_all_workers_and_equally_for_equal_seeds() -> None:
    draws = [loads(Random(seed), state(FAR, NEAR, waiting="a"))[0] for seed in range(20)]
    assert set(draws) == {"n0-w0", "n1-w0"}
    assert draws == [loads(Random(seed), state(FAR, NEAR, waiting="a"))[0] for seed in range(20)]


def test_requests_join_a_load_up_to_its_slots_and_the_next_gets_another() -> None:
    assert loads(BestFree(), state(FAR, NEAR, waiting="aa")) == ["n1-w0"]
    assert loads(BestFree(), state(FAR, NEAR, waiting="aaa")) == ["n1-w0", "n0-w0"]


def test_nothing_more_is_unloaded_while_room_is_coming() -> None:
    leaving = resident("n1-w0", "b", state=ReplicaState.DRAINING)
    moment = state(
        node("n1", worker("n1-w0", leaving)), node("n0", worker("n0-w0", resident("n0-w0", "c"))), waiting="a"
    )
    assert BestFree().decide(moment, 0.0).actions == ()


def test_an_unknown_model_is_refused() -> None:
    assert BestFree().decide(state(FAR, waiting="x"), 0.0).actions == (Refuse("0", RefusalReason.UNKNOWN_MODEL, None),)


def test_the_least_recently_used_replica_goes_wherever_it_is() -> None:
    old, new = resident("n0-w0", "b", idle_s=1.0), resident("n1-w0", "c", idle_s=5.0)
    moment = state(node("n0", worker("n0-w0", old)), node("n1", worker("n1-w0", new), disk="a"), waiting="a")
    assert [one.spot for one in unloads(KeepAliveLru(), moment, 9.0)] == [old.spot]
    assert [one.spot for one in unloads(BestFree(), moment, 9.0)] == [new.spot]


def test_a_kept_replica_goes_when_its_time_is_over_and_not_before() -> None:
    moment = state(node("n0", worker("n0-w0", resident("n0-w0", "b", idle_s=3.0))))
    assert KeepAliveLru().decide(moment, 4.0).look_again_s == 3.0 + KEEP_ALIVE_S
    assert unloads(KeepAliveLru(), moment, 3.0 + KEEP_ALIVE_S) == [Unload(spot("n0-w0", "b"), UnloadReason.IDLE)]


@pytest.mark.parametrize(("left_s", "waits"), [(5.0, True), (15.0, False)])
def test_who_is_patient_waits_for_the_closest_worker_if_that_is_sooner(left_s: float, waits: bool) -> None:
    used = node("n1", worker("n1-w0", resident("n1-w0", "b", running("9", left_s))), disk="a")
    moment = state(FAR, used, waiting="a")
    assert loads(LocalityWait(), moment) == ([] if waits else ["n0-w0"])
    assert LocalityWait().decide(moment, 0.0).look_again_s == (PATIENCE_S if waits else None)
    assert LocalityWait().decide(moment, PATIENCE_S).actions == (Load(spot("n0-w0", "a"), "store-n0"),)


def test_a_slot_is_taken_before_anything_is_loaded() -> None:
    here = node("n0", worker("n0-w0", resident("n0-w0", "a", running("9"))))
    for policy in (BestFree(), LeastLoaded(), LocalityWait(), KeepAliveLru(), RoundRobin(), Random(1)):
        assert policy.decide(state(here, NEAR, waiting="a"), 0.0).actions == (Place("0", spot("n0-w0", "a")),)
