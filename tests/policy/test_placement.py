"""Placement, through decide: where one waiting request goes, and what is done for it."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.facts import Member, ModelEntry, ReplicaState, RunnerKind, Tier
from policy.actions import Action, Load, Place, RefusalReason, Refuse, Unload, UnloadReason
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Spot, View
from tests.policy.scene import REPLICA, WEIGHTS, at, cluster, model, nascent, replica, request, store, worker

KNOBS = Knobs(keep_alive_s=60.0, hold_s=120.0, distrust_s=5.0)
NOW = 1000.0
M, OTHER = model("m"), model("other")
STORE = store("s1", "m@1", "other@1")


def actions(members: list[Member], *, models: tuple[ModelEntry, ...] = (M, OTHER), **rest: Any) -> tuple[Action, ...]:
    """What is decided at NOW; unless told, one request waits for the model m, and no replica is idle for long."""
    rest.setdefault("waiting", (request("r", since_s=NOW),))
    replicas = [(w.id, r) for w in members if w.worker for r in w.worker.replicas]
    idle = {Spot(worker_id, r.model, r.digest): NOW for worker_id, r in replicas if not r.running}
    rest["idle_since_s"] = idle | rest.get("idle_since_s", {})
    return decide(View(cluster(members, models), **rest), NOW, KNOBS).actions


def loaded_on(*members: Member, **rest: Any) -> str:
    """The worker that the one action loads on."""
    (action,) = actions([STORE, *members], **rest)
    assert isinstance(action, Load)
    return action.spot.worker_id


def test_an_open_slot_of_the_least_busy_replica_is_taken() -> None:
    busy, free = worker("w1", replica("m", running=1)), worker("w2", replica("m"))
    assert actions([busy, free, STORE]) == (Place("r", at("w2")),)


def test_requests_already_sent_count_before_the_worker_reports_them() -> None:
    first, second = worker("w1", replica("m")), worker("w2", replica("m"))
    assert actions([first, second, STORE], placed={at("w1"): 1}) == (Place("r", at("w2")),)


def test_requests_that_the_worker_queues_count_as_busy() -> None:
    members = [worker("w1", replica("m", running=1, waiting=1)), worker("w2", replica("m", running=1)), STORE]
    assert actions(members) == (Place("r", at("w2")),)


def test_a_full_replica_takes_nothing_and_another_is_loaded() -> None:
    full, empty = worker("w1", replica("m", running=2)), worker("w2")
    assert loaded_on(full, empty) == "w2"


def test_two_requests_of_one_decision_do_not_share_the_last_slot() -> None:
    one_slot = worker("w1", replica("m"), slots=1)
    waiting = (request("r1", since_s=NOW), request("r2", since_s=NOW))
    assert actions([one_slot, STORE], waiting=waiting) == (Place("r1", at("w1")),)


def test_a_worker_that_the_request_excludes_gets_neither_it_nor_a_load_for_it() -> None:
    ready, empty = worker("w1", replica("m")), worker("w2")
    assert loaded_on(ready, empty, waiting=(request("r", since_s=NOW, excluded=["w1"]),)) == "w2"
    assert actions([empty, STORE], waiting=(request("r", since_s=NOW, excluded=["w2"]),)) == ()


@pytest.mark.parametrize("state", [ReplicaState.LOADING, ReplicaState.DRAINING])
def test_a_replica_that_is_not_ready_takes_nothing(state: ReplicaState) -> None:
    assert actions([worker("w1", replica("m", state=state)), STORE]) == ()


def test_a_replica_that_is_being_unloaded_takes_nothing() -> None:
    assert actions([worker("w1", replica("m")), STORE], unloading=frozenset({at("w1")})) == ()


def test_a_replica_takes_requests_only_when_its_load_command_has_ended() -> None:
    """Facts may be quicker than the load's own stream, which has the progress and the start kind."""
    assert actions([worker("w1", replica("m")), STORE], loading=frozenset({at("w1")})) == ()


def test_requests_of_one_moment_cause_one_load() -> None:
    waiting = tuple(request(f"r{n}", since_s=NOW) for n in range(2))
    assert actions([worker("w1"), worker("w2"), STORE], waiting=waiting) == (Load(at("w1"), "s1"),)


def test_a_load_under_way_is_joined_whether_books_or_facts_know_it() -> None:
    assert actions([worker("w1"), worker("w2"), STORE], loading=frozenset({at("w1")})) == ()
    assert actions([worker("w1", replica("m", state=ReplicaState.LOADING)), worker("w2"), STORE]) == ()


def test_nobody_waits_for_a_load_on_a_worker_that_does_not_answer() -> None:
    dying, well = worker("w1", replica("m", state=ReplicaState.LOADING)), worker("w2")
    assert loaded_on(dying, well, distrusted_until_s={"w1": NOW + 1}) == "w2"


def test_nobody_waits_for_a_load_on_a_worker_that_it_excludes() -> None:
    waiting = (request("r", since_s=NOW, excluded=["w1"]),)
    assert loaded_on(worker("w1"), worker("w2"), waiting=waiting, loading=frozenset({at("w1")})) == "w2"


def test_a_model_is_loaded_where_its_checkpoint_is_in_dram_before_disk() -> None:
    members = [worker("w1", node="n1"), worker("w2", node="n2"), store("s2", "m@1", node="n2", tier=Tier.DRAM)]
    assert actions([*members, STORE]) == (Load(at("w2"), "s2"),)


def test_a_model_is_loaded_on_a_node_that_has_it_before_one_that_has_not() -> None:
    assert loaded_on(worker("w1", node="elsewhere"), worker("w2", node="n1")) == "w2"


def test_a_worker_loads_from_the_store_of_its_own_node() -> None:
    afar = store("s0", "m@1", node="elsewhere", tier=Tier.DRAM)
    assert actions([worker("w1"), afar, STORE]) == (Load(at("w1"), "s1"),)


def test_equally_near_workers_are_told_apart_by_their_free_memory() -> None:
    assert loaded_on(worker("w1", memory=REPLICA), worker("w2", memory=3 * REPLICA)) == "w2"


def test_free_memory_is_used_before_anything_is_unloaded() -> None:
    near, far = worker("w1", replica("other")), worker("w2", node="elsewhere")
    assert loaded_on(near, far) == "w2"


def test_a_load_under_way_counts_against_its_workers_memory() -> None:
    assert actions([worker("w1"), STORE], loading=frozenset({at("w1", "other")})) == ()
    roomy = worker("w1", memory=2 * REPLICA)
    assert actions([roomy, STORE], loading=frozenset({at("w1", "other")})) == (Load(at("w1"), "s1"),)


def test_several_loads_under_way_count_together() -> None:
    coming = frozenset({at("w1", "other"), at("w1", "third")})
    models = (M, OTHER, model("third"))
    assert actions([worker("w1", memory=2 * REPLICA), STORE], models=models, loading=coming) == ()
    assert actions([worker("w1", memory=3 * REPLICA), STORE], models=models, loading=coming) != ()


def test_a_load_counts_in_full_while_the_worker_reports_it_without_its_size() -> None:
    """A worker lists a replica from the load's first moment, and knows its size only from the manifest."""
    starting = worker("w1", replica("other", state=ReplicaState.LOADING, size=0))
    assert actions([starting, STORE], loading=frozenset({at("w1", "other")})) == ()
    assert actions([starting, STORE]) == ()  # nor while no command for it is under way: a former leader's is


def test_a_worker_that_could_not_be_reached_gets_no_load_until_it_is_trusted_again() -> None:
    assert actions([worker("w1"), STORE], distrusted_until_s={"w1": NOW + 1}) == ()
    assert loaded_on(worker("w1"), distrusted_until_s={"w1": NOW}) == "w1"


def test_the_replica_that_has_been_idle_longest_is_evicted() -> None:
    members = [worker("w1", replica("other"), replica("third"), memory=2 * REPLICA), STORE]
    idle = {at("w1", "other"): 990.0, at("w1", "third"): 980.0}
    found = actions(members, models=(M, OTHER, model("third")), idle_since_s=idle)
    assert found == (Unload(at("w1", "third"), UnloadReason.EVICTED),)


def test_eviction_happens_where_it_takes_the_fewest_unloads() -> None:
    small = [replica("a", size=6), replica("b", size=6)]
    members = [worker("w1", *small), worker("w2", replica("other")), STORE]
    found = actions(members, models=(M, OTHER, model("a"), model("b")))
    assert found == (Unload(at("w2", "other"), UnloadReason.EVICTED),)


def test_no_more_is_evicted_than_the_model_needs() -> None:
    members = [worker("w1", replica("a", size=6), replica("b", size=6), replica("c", size=6), memory=18), STORE]
    idle = {at("w1", "a"): 997.0, at("w1", "b"): 998.0, at("w1", "c"): 999.0}
    found = actions(members, models=(M, model("a"), model("b"), model("c")), idle_since_s=idle)
    assert [a.spot.model for a in found if isinstance(a, Unload)] == ["a", "b"]


def test_a_small_replica_is_spared_when_a_larger_one_makes_room_alone() -> None:
    members = [worker("w1", replica("a", size=3), replica("b", size=12), memory=15), STORE]
    idle = {at("w1", "a"): 997.0, at("w1", "b"): 998.0}
    found = actions(members, models=(M, model("a"), model("b")), idle_since_s=idle)
    assert found == (Unload(at("w1", "b"), UnloadReason.EVICTED),)


def test_a_busy_replica_is_never_evicted() -> None:
    assert actions([worker("w1", replica("other", running=1)), STORE], idle_since_s={}) == ()


def test_a_replica_that_just_got_a_request_in_the_same_decision_is_not_evicted() -> None:
    members = [worker("w1", replica("other")), STORE]
    waiting = (request("r1", "other", since_s=NOW - 1), request("r2", "m", since_s=NOW))
    assert actions(members, waiting=waiting) == (Place("r1", at("w1", "other")),)


def test_a_replica_whose_load_command_is_not_over_is_not_evicted() -> None:
    assert actions([worker("w1", replica("other")), STORE], loading=frozenset({at("w1", "other")})) == ()


def test_nothing_more_is_evicted_while_room_is_on_its_way() -> None:
    members = [worker("w1", replica("other")), worker("w2", replica("third")), STORE]
    models = (M, OTHER, model("third"))
    assert actions(members, models=models, unloading=frozenset({at("w1", "other")})) == ()
    draining = worker("w1", replica("other", state=ReplicaState.DRAINING))
    assert actions([draining, *members[1:]], models=models) == ()


def test_a_worker_that_could_not_be_reached_is_not_asked_to_evict() -> None:
    assert actions([worker("w1", replica("other")), STORE], distrusted_until_s={"w1": NOW + 1}) == ()


def test_a_model_too_large_for_every_worker_is_refused_for_good() -> None:
    huge = model("m", weights=WEIGHTS + 1)
    assert actions([worker("w1"), worker("w2"), STORE], models=(huge,)) == (Refuse("r", RefusalReason.TOO_LARGE, None),)


def test_nothing_is_too_large_while_a_worker_has_not_said_what_it_has() -> None:
    assert actions([nascent("w1"), STORE]) == ()
    huge = model("m", weights=WEIGHTS + 1)
    assert actions([worker("w1"), nascent("w2"), STORE], models=(huge,)) == ()


def test_without_a_store_that_holds_the_checkpoint_the_request_is_refused() -> None:
    no_checkpoint = (Refuse("r", RefusalReason.NO_CHECKPOINT, KNOBS.distrust_s),)
    assert actions([worker("w1")]) == no_checkpoint
    assert actions([worker("w1"), store("s1", "other@1")]) == no_checkpoint


def test_without_a_worker_the_request_waits() -> None:
    assert actions([STORE]) == ()


def test_an_unknown_model_is_refused_for_good() -> None:
    assert actions([worker("w1"), STORE], models=(OTHER,)) == (Refuse("r", RefusalReason.UNKNOWN_MODEL, None),)


def test_the_order_in_which_members_are_known_does_not_matter() -> None:
    members = [worker("w1", replica("other")), worker("w2", replica("other")), STORE]
    assert actions(members) == actions(members[::-1])


def test_what_only_embeds_needs_room_for_its_weights_alone() -> None:
    finder = replace(M, checkpoint=replace(M.checkpoint, runner=RunnerKind.ENCODER))
    tight = worker("w1", memory=WEIGHTS)
    assert actions([tight, STORE], models=(finder,)) == (Load(at("w1"), "s1"),)
    assert actions([tight, STORE], models=(M,)) == (Refuse("r", RefusalReason.TOO_LARGE, None),)
    both = worker("w1", replica("other", size=WEIGHTS), memory=2 * WEIGHTS + 1)
    assert actions([both, STORE], models=(finder, OTHER)) == (Load(at("w1"), "s1"),)


def test_two_loads_of_one_decision_do_not_share_a_disk_that_another_could_read() -> None:
    nodes = [(worker("w1", node="n1"), worker("w2", node="n1")), (worker("w3", node="n2"), worker("w4", node="n2"))]
    stores = [store(f"s{n}", "m@1", "other@1", node=f"n{n}") for n in (1, 2)]
    waiting = (request("r", since_s=NOW), request("o", "other", since_s=NOW))
    loads = actions([*stores, *(member for members in nodes for member in members)], waiting=waiting)
    assert [load.store_id for load in loads if isinstance(load, Load)] in (["s1", "s2"], ["s2", "s1"])
