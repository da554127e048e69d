from types import MappingProxyType

import pytest

from mesh.facts import ReplicaState
from policy.actions import Load
from sim.policy import ClusterState, NodeState, Resident, RunningRequest, WorkerState, load, spot


def a_state() -> ClusterState:
    running = RunningRequest("1", 0.0, 10, 2, 1.0)
    ready = Resident(spot("w1", "a"), ReplicaState.READY, 12, 4, (running,), None, None)
    coming = Resident(spot("w1", "b"), ReplicaState.LOADING, 12, 4, (), None, 3.0)
    workers = (WorkerState("w1", "n1", 30, (ready, coming), 2, 4), WorkerState("w2", "n1", 30, (), 2, 4))
    held = MappingProxyType({"a": 10, "b": 10})
    return ClusterState((), (NodeState("n1", "store-n1", workers, held, held, 3.0, 2.0, 1.0, ()),), {}, {})


def test_memory_is_held_by_all_replicas_and_slots_are_open_on_those_that_are_ready() -> None:
    state = a_state()
    assert [worker.free_bytes for worker in state.workers()] == [6, 30]
    assert {one.spot.model: one.open_slots for one in state.residents()} == {"a": 3, "b": 0}
    assert [one.spot for one in state.residents("b")] == [spot("w1", "b")]


def test_a_load_goes_through_the_workers_own_node() -> None:
    state = a_state()
    worker = next(state.workers())
    assert load(state, worker, "c") == Load(spot("w1", "c"), "store-n1")
    with pytest.raises(KeyError):
        state.node("n2")
