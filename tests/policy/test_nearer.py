"""Room where the checkpoint lies, though there is memory elsewhere; through decide."""

from mesh.facts import ReplicaState, Tier
from policy.actions import Action, Load, Unload, UnloadReason
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import View
from tests.policy.scene import at, cluster, model, replica, request, store, worker

NOW = 1000.0
RATES = {Tier.ORIGIN: 1.0, Tier.DISK: 5.0, Tier.DRAM: 10.0, Tier.DEVICE: 100.0}  # weights take 10, 2 and 1 s
KNOBS = Knobs(bytes_per_s=RATES, keep_alive_s=1e6, copies=False)
FAR, STORES = worker("w2", node="n2"), (store("s1", "m@1", "other@1"), store("s2", "other@1", node="n2"))


def actions(near: object, *, stores: tuple[object, ...] = STORES, knobs: Knobs = KNOBS) -> tuple[Action, ...]:
    facts = cluster([near, FAR, *stores], [model("m"), model("other")])  # type: ignore[list-item]
    idle = {at("w1", "other"): NOW - 1.0}
    return decide(View(facts, waiting=(request("r", since_s=NOW),), idle_since_s=idle), NOW, knobs).actions


def test_an_idle_replica_makes_way_where_a_start_is_clearly_sooner_than_on_free_memory_afar() -> None:
    assert actions(worker("w1", replica("other"))) == (Unload(at("w1", "other"), UnloadReason.EVICTED),)


def test_it_stays_where_the_start_is_hardly_sooner() -> None:
    fast = Knobs(bytes_per_s={**RATES, Tier.ORIGIN: 4.5}, keep_alive_s=1e6, copies=False)
    (load,) = actions(worker("w1", replica("other")), knobs=fast)
    assert isinstance(load, Load)
    assert load.spot == at("w2")


def test_one_that_is_used_or_comes_does_not_make_way() -> None:
    for kept in (replica("other", running=1), replica("other", state=ReplicaState.LOADING)):
        (load,) = actions(worker("w1", kept))
        assert isinstance(load, Load)
        assert load.spot == at("w2")


def test_free_memory_beside_it_is_taken_first() -> None:
    (load,) = actions(worker("w1", replica("other"), memory=24))
    assert isinstance(load, Load)
    assert load.spot == at("w1")
