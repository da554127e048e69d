"""Workers and nodes that are to become empty: nothing new comes, what idles goes, what runs stays until it ends."""

from dataclasses import replace

from mesh.facts import ClusterFacts, ReplicaState
from policy.actions import Load, Place, Unload, UnloadReason
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import View
from tests.policy.scene import REPLICA, at, cluster, model, replica, request, store, worker

KNOBS = Knobs(keep_alive_s=60.0)
STORE = store("s1", "m@1")


def drained(facts: ClusterFacts, *names: str) -> ClusterFacts:
    """The same cluster, with something draining."""
    return replace(facts, drains=frozenset(names))


def test_an_idle_replica_of_a_draining_worker_is_unloaded_at_once_and_others_stay() -> None:
    facts = cluster([worker("w1", replica("m")), worker("w2", replica("m")), STORE], [model("m")])
    view = View(drained(facts, "worker/w1"), idle_since_s={at("w1"): 5.0, at("w2"): 5.0})
    assert decide(view, 5.0, KNOBS).actions == (Unload(at("w1"), UnloadReason.DRAINED),)


def test_a_busy_replica_of_a_draining_worker_finishes() -> None:
    facts = cluster(
        [worker("w1", replica("m", running=1)), worker("w2", replica("n")), STORE], [model("m"), model("n")]
    )
    assert decide(View(drained(facts, "worker/w1"), placed={at("w2", "n"): 1}), 0.0, KNOBS).actions == ()
    promised = cluster([worker("w1", replica("m")), STORE], [model("m")])
    assert decide(View(drained(promised, "worker/w1"), placed={at("w1"): 1}), 0.0, KNOBS).actions == ()


def test_a_request_goes_past_the_open_slot_of_a_draining_worker() -> None:
    workers = [worker("w1", replica("m")), worker("w2", replica("m", running=1))]
    view = View(drained(cluster([*workers, STORE], [model("m")]), "worker/w1"), (request("r"),))
    assert Place("r", at("w2")) in decide(view, 0.0, KNOBS).actions


def test_a_request_of_a_model_that_is_only_on_a_draining_worker_loads_it_elsewhere() -> None:
    facts = cluster([worker("w1", replica("m", running=1)), worker("w2"), STORE], [model("m")])
    assert decide(View(drained(facts, "worker/w1"), (request("r"),)), 0.0, KNOBS).actions == (Load(at("w2"), "s1"),)


def test_a_load_under_way_to_a_draining_worker_is_waited_for_by_nobody() -> None:
    loading = replica("m", state=ReplicaState.LOADING)
    facts = cluster([worker("w1", loading), worker("w2"), STORE], [model("m")])
    view = View(drained(facts, "worker/w1"), (request("r"),), loading=frozenset({at("w1")}))
    assert decide(view, 0.0, KNOBS).actions == (Load(at("w2"), "s1"),)


def test_a_node_drains_all_of_its_workers() -> None:
    workers = [worker("w1", replica("m"), node="n1"), worker("w2", replica("m"), node="n1"), worker("w3", node="n2")]
    facts = drained(cluster([*workers, STORE], [model("m")]), "node/n1")
    actions = decide(View(facts, (request("r"),)), 0.0, KNOBS).actions
    assert set(actions) == {
        Load(at("w3"), "s1"),
        Unload(at("w1"), UnloadReason.DRAINED),
        Unload(at("w2"), UnloadReason.DRAINED),
    }


def test_a_request_waits_while_all_workers_drain_and_is_not_told_that_none_is_large_enough() -> None:
    facts = drained(cluster([worker("w1"), STORE], [model("m")]), "worker/w1")
    decision = decide(View(facts, (request("r", since_s=1.0),)), 2.0, KNOBS)
    assert (decision.actions, decision.look_again_s) == ((), 1.0 + KNOBS.ageing_s)


def test_a_worker_that_says_that_it_stops_gets_nothing_new() -> None:
    stopping = worker("w1", memory=2 * REPLICA)
    assert stopping.worker
    stopping = replace(stopping, worker=replace(stopping.worker, stopping=True))
    facts = cluster([stopping, worker("w2"), STORE], [model("m")])
    assert decide(View(facts, (request("r"),)), 0.0, KNOBS).actions == (Load(at("w2"), "s1"),)


def test_an_unload_that_failed_is_asked_for_again_when_the_worker_is_trusted_again() -> None:
    facts = drained(cluster([worker("w1", replica("m")), STORE], [model("m")]), "worker/w1")
    view = View(facts, idle_since_s={at("w1"): 0.0}, distrusted_until_s={"w1": 7.0})
    early = decide(view, 6.0, KNOBS)
    assert (early.actions, early.look_again_s) == ((), 7.0)
    assert decide(view, 7.0, KNOBS).actions == (Unload(at("w1"), UnloadReason.DRAINED),)
