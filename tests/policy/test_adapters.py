"""Adapters, through decide: they go where their base is, bring it along where it is not, and keep it there."""

from dataclasses import replace
from typing import Any

from mesh.facts import Member, ModelEntry, ReplicaFacts, ReplicaState
from policy.actions import Action, Load, Place, Refuse, Unload, UnloadReason
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Spot, View
from tests.policy.scene import KV, REPLICA, WEIGHTS, at, cluster, model, replica, request, store, worker

KNOBS = Knobs(keep_alive_s=60.0, hold_s=120.0, distrust_s=5.0)
NOW, OWN = 1000.0, 1  # bytes of an adapter
M, OTHER = model("m"), model("other")
A, B = model("a", weights=OWN, base="m@1"), model("b", weights=OWN, base="m@1")
STORE = store("s1", "m@1", "a@1", "b@1", "other@1")
BOTH = REPLICA + OWN
LOAD_A, LOAD_B = (Load(at("w1", name), "s1", "m@1", "m") for name in ("a", "b"))


def adapter(name: str, *, beside: str = "m", **more: Any) -> ReplicaFacts:
    """An adapter of m@1 on a worker."""
    return replace(replica(name, size=OWN, **more), base="m@1", beside=beside)


def actions(members: list[Member], *, models: tuple[ModelEntry, ...] = (M, A, B, OTHER), **rest: Any) -> set[Action]:
    """What is decided at NOW; unless told, one request waits for the adapter a, and no replica is idle for long."""
    rest.setdefault("waiting", (request("r", "a", since_s=NOW),))
    replicas = [(w.id, r) for w in members if w.worker for r in w.worker.replicas]
    idle = {Spot(worker_id, r.model, r.digest): NOW for worker_id, r in replicas if not r.running}
    rest["idle_since_s"] = idle | rest.get("idle_since_s", {})
    return set(decide(View(cluster([STORE, *members], models), **rest), NOW, KNOBS).actions)


def test_an_adapter_goes_where_its_base_is_and_takes_no_more_than_its_own_memory() -> None:
    empty, having = worker("w2", memory=100), worker("w1", replica("m"), memory=BOTH)
    assert actions([empty, having]) == {LOAD_A}
    assert actions([having], waiting=(request("1", "a", since_s=NOW), request("2", "b", since_s=NOW))) == {LOAD_A}
    roomy = worker("w1", replica("m"), memory=BOTH + OWN)
    assert actions([roomy], waiting=(request("1", "a", since_s=NOW), request("2", "b", since_s=NOW))) == {
        LOAD_A,
        LOAD_B,
    }


def test_without_its_base_it_brings_that_along_under_a_models_name_or_none() -> None:
    assert actions([worker("w1", memory=BOTH)]) == {LOAD_A}
    assert actions([worker("w1", memory=BOTH)], models=(A,)) == {Load(at("w1", "a"), "s1", "m@1", "")}


def test_what_is_too_small_for_it_and_its_base_is_never_large_enough() -> None:
    (refused,) = actions([worker("w1", memory=BOTH - 1)])
    assert isinstance(refused, Refuse)


def test_a_base_on_its_way_is_counted_once_for_all_its_adapters() -> None:
    two = (request("1", "a", since_s=NOW), request("2", "b", since_s=NOW))
    assert actions([worker("w1", memory=BOTH + OWN)], waiting=two) == {LOAD_A, LOAD_B}
    coming = worker(
        "w1", adapter("a", state=ReplicaState.LOADING), replica("m", state=ReplicaState.LOADING, size=0), memory=BOTH
    )
    assert actions([coming], loading=frozenset({at("w1", "a")}), waiting=(request("2", "b", since_s=NOW),)) == set()


def test_a_base_that_loads_by_nobodys_command_will_take_its_memory_all_the_same() -> None:
    coming, none_left = replica("m", state=ReplicaState.LOADING, size=0), REPLICA + REPLICA
    beside = frozenset({at("w1", "other")})
    assert actions([worker("w1", coming, memory=none_left)], loading=beside) == set()
    assert actions([worker("w1", coming, memory=none_left + OWN)], loading=beside) == {LOAD_A}
    unasked = replace(coming, model="")  # its adapters say what it takes
    assert actions([worker("w1", unasked, memory=none_left)], loading=beside) == set()
    assert len(actions([worker("w1", unasked, memory=none_left + OWN)], loading=beside)) == 1


def test_a_base_that_is_ready_takes_what_its_worker_says_and_no_more() -> None:
    small = worker("w1", replica("m", size=REPLICA - 1), adapter("a"), memory=REPLICA + OWN + OWN)
    waits = (request("r", "c", since_s=NOW),)
    coming = frozenset({at("w1", "b")})
    third = (M, A, B, model("c", weights=OWN, base="m@1"))
    stores = store("s2", "m@1", "c@1")
    load = Load(at("w1", "c"), "s2", "m@1", "m")
    assert actions([stores, small], models=third, waiting=waits, loading=coming) == {load}


def test_an_adapter_of_which_no_store_has_the_base_waits_for_none_in_vain() -> None:
    lacking = store("s1", "a@1")
    view = View(cluster([lacking, worker("w1", memory=BOTH)], (A,)), waiting=(request("r", "a", since_s=NOW),))
    (refused,) = decide(view, NOW, KNOBS).actions
    assert isinstance(refused, Refuse)


def test_adapters_and_their_base_share_its_slots() -> None:
    full = worker("w1", replica("m", running=1), adapter("a"), adapter("b", running=1), memory=BOTH + OWN)
    assert actions([full]) == set()
    free = worker("w1", replica("m", running=1), adapter("a"), adapter("b"), memory=BOTH + OWN)
    assert actions([free]) == {Place("r", at("w1", "a"))}
    twice = (request("1", "a", since_s=NOW), request("2", "m", since_s=NOW))
    assert actions([free], waiting=twice) == {Place("1", at("w1", "a"))}


def test_a_base_stays_for_as_long_as_an_adapter_is_on_it() -> None:
    old = {at("w1", "m"): 0.0, at("w1", "a"): NOW}
    having = worker("w1", replica("m"), adapter("a"), memory=BOTH)
    assert actions([having], waiting=(), idle_since_s=old) == set()
    both = {at("w1", "m"): 0.0, at("w1", "a"): 0.0}
    assert actions([having], waiting=(), idle_since_s=both) == {Unload(at("w1", "a"), UnloadReason.IDLE)}
    alone = worker("w1", replica("m"), memory=BOTH)
    assert actions([alone], waiting=(), idle_since_s=old) == {Unload(at("w1", "m"), UnloadReason.IDLE)}


def test_a_base_of_no_model_goes_with_its_last_adapter() -> None:
    base = replica("", digest="m@1")
    having = worker("w1", base, adapter("a", beside=""), memory=BOTH)
    assert actions([having], waiting=()) == set()
    (gone,) = actions([worker("w1", base, memory=BOTH)], waiting=())
    assert gone == Unload(at("w1", "", "m@1"), UnloadReason.SUPERSEDED)


def test_room_is_made_of_idle_adapters_with_their_base_and_never_of_a_base_that_is_in_use() -> None:
    wanted = (request("r", "other", since_s=NOW),)
    idle = worker("w1", replica("m"), adapter("a"), memory=BOTH)
    gone = {Unload(at("w1", name), UnloadReason.EVICTED) for name in ("m", "a")}
    assert actions([idle], waiting=wanted) == gone
    busy = worker("w1", replica("m"), adapter("a", running=1), memory=BOTH)
    assert actions([busy], waiting=wanted) == set()
    loading = worker("w1", replica("m"), adapter("a", state=ReplicaState.LOADING), memory=BOTH)
    assert actions([loading], waiting=wanted, loading=frozenset({at("w1", "a")})) <= {
        Unload(at("w1", "a"), UnloadReason.EVICTED)
    }


def test_room_for_an_adapter_is_not_made_of_its_own_base() -> None:
    full = worker("w1", replica("m"), adapter("b"), memory=BOTH)
    assert actions([full]) == {Unload(at("w1", "b"), UnloadReason.EVICTED)}
    beside = worker("w1", replica("m"), replica("other"), memory=2 * REPLICA)
    assert actions([beside]) == {Unload(at("w1", "other"), UnloadReason.EVICTED)}
    assert WEIGHTS + KV == REPLICA


def test_an_update_of_the_base_waits_for_the_adapters_in_use() -> None:
    newer = model("m", digest="m@2", previous="m@1")
    stores = store("s1", "m@1", "m@2", "a@1")
    busy = worker("w1", replica("m", digest="m@1"), adapter("a", running=1), memory=BOTH)
    view = View(cluster([stores, busy], (newer, A)), waiting=(request("r", "m", since_s=NOW),))
    assert decide(view, NOW, KNOBS).actions == (Place("r", at("w1", "m", "m@1")),)
    idle = worker("w1", replica("m", digest="m@1"), adapter("a"), memory=BOTH)
    unloaded = {
        a.spot for a in decide(View(cluster([stores, idle], (newer, A))), 1.0, KNOBS).actions if isinstance(a, Unload)
    }
    assert unloaded == {at("w1", "m", "m@1"), at("w1", "a")}
