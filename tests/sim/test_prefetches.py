"""Prefetches in the simulator: weights of 10 bytes, a disk of 1 byte a second, a bus of 10, a network of 0.5."""

from collections.abc import Mapping

import pytest

from mesh.facts import ReplicaState, Tier
from policy.actions import Place, Prefetch
from sim.cluster import Impossible
from sim.failures import Failure, NodeCrash, Partition
from sim.outcome import Run
from sim.policy import Action, ClusterState, Plan, load
from sim.run import simulate
from sim.traffic import Flow, Resource, fair_shares
from tests.sim.paper import ask, cluster

UP = Prefetch("store-n0", "a", Tier.DRAM)


class Ahead:
    """Prefetches at once; loads what is asked for on the first worker; keeps what each moment showed."""

    name = "ahead"

    def __init__(self, *prefetches: Prefetch) -> None:
        self._prefetches = list(prefetches)
        self.dram: list[tuple[float, Mapping[str, int]]] = []

    def decide(self, state: ClusterState, now: float) -> Plan:
        if state.nodes:
            self.dram.append((now, dict(state.nodes[0].dram)))
        actions: list[Action] = [*self._prefetches]
        self._prefetches = []
        residents = {one.spot.model: one for one in state.residents()}
        for one in state.waiting:
            if one.model not in residents:
                actions.append(load(state, next(state.workers()), one.model))
                break
            if residents[one.model].state is ReplicaState.READY:
                actions.append(Place(one.id, residents[one.model].spot))
        return Plan(tuple(actions))


def first_s(run: Run, number: int = 0) -> float:
    """When an answer's first token came."""
    at_s = run.outcomes[number].first_s
    assert at_s is not None
    return at_s


def run(*prefetches: Prefetch, at_s: float, failures: tuple[Failure, ...] = (), copies: int = 1) -> tuple[Run, Ahead]:
    """One request for b, which is never prefetched, wakes the policy at 0; one for a comes at `at_s`."""
    policy = Ahead(*prefetches)
    spec = cluster("a", "b", memory_bytes=24, copies=copies)
    return simulate(spec, [ask(0.0, "b"), ask(at_s, "a")], policy, failures), policy


def test_a_prefetched_checkpoint_loads_from_memory() -> None:
    cold, _ = run(at_s=100.0)
    ahead, _ = run(UP, at_s=100.0)
    assert first_s(cold, 1) == pytest.approx(100.0 + 10.0 + 0.5 + 1.0)
    assert first_s(ahead, 1) == pytest.approx(100.0 + 1.0 + 0.5 + 1.0)


def test_a_prefetch_stands_behind_a_load_of_another_model() -> None:
    done, policy = run(UP, at_s=100.0)
    assert first_s(done) == pytest.approx(10.0 + 0.5 + 1.0)  # as if nothing else had read the disk
    came_s = min(at_s for at_s, dram in policy.dram if "a" in dram)
    assert came_s == pytest.approx(20.0)


def test_a_load_takes_over_from_a_prefetch_what_has_come() -> None:
    done, _ = run(UP, at_s=14.0)  # 4 of its 10 bytes are there
    assert first_s(done, 1) == pytest.approx(14.0 + 0.4 + 6.0 + 0.5 + 1.0)


def test_from_an_origin_bytes_come_to_disk_and_memory_at_once() -> None:
    done, _ = run(Prefetch("store-n0", "a", Tier.DISK), at_s=100.0, copies=0)
    assert first_s(done, 1) == pytest.approx(100.0 + 10.0 + 0.5 + 1.0)
    done, _ = run(UP, at_s=100.0, copies=0)
    assert first_s(done, 1) == pytest.approx(100.0 + 1.0 + 0.5 + 1.0)


def test_what_finds_no_room_ends_at_once_and_changes_nothing() -> None:
    policy = Ahead(UP)
    done = simulate(cluster("a", dram_bytes=9), [ask(5.0, "a")], policy)
    assert first_s(done) == pytest.approx(5.0 + 10.0 + 0.5 + 1.0)
    assert policy.dram[-1][1] == {}


@pytest.mark.parametrize(("failure", "kept"), [(NodeCrash(13.5, "n0", 5.0), 0), (Partition(13.5, "n0", 5.0), 3)])
def test_a_prefetch_does_not_outlive_the_way_to_its_node(failure: Failure, kept: int) -> None:
    """3.5 of its bytes have come by then; what a machine loses with its memory is another thing."""
    done, policy = run(UP, at_s=200.0, failures=(failure,))
    assert not any(one.lost for one in done.outcomes)
    (dram,) = [dram for at_s, dram in policy.dram if at_s == 200.0]
    assert dram.get("a", 0) == kept


@pytest.mark.parametrize(
    "what", [(UP, UP), (Prefetch("store-n9", "a", Tier.DRAM),), (Prefetch("store-n0", "z", Tier.DRAM),)]
)
def test_what_cannot_be_prefetched_is_the_policys_fault(what: tuple[Prefetch, ...]) -> None:
    with pytest.raises(Impossible):
        run(*what, at_s=1.0)


def test_flows_behind_share_what_the_others_leave() -> None:
    wide, narrow = Resource("wide", 10.0), Resource("narrow", 4.0)
    before = Flow(1.0, (wide, narrow), lambda: None)
    behind = [Flow(1.0, (wide,), lambda: None, behind=True) for _ in range(2)]
    assert fair_shares([behind[0], before, behind[1]]) == [(before, 4.0), (behind[0], 3.0), (behind[1], 3.0)]
