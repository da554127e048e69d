"""Policies that do one thing each, to see that the simulator does it."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from mesh.facts import ReplicaState
from mesh.requests import MoveKind
from policy.actions import Move, Place
from sim.cluster import Impossible
from sim.failures import WorkerCrash
from sim.observer import FIRST_GUESS_TOKENS
from sim.policy import Action, ClusterState, Plan, Preempt, load, spot
from sim.run import simulate
from sim.spec import ClusterSpec
from tests.sim.paper import ask, cluster

HERE, THERE = spot("n0-w0", "a"), spot("n1-w0", "a")
TWO = cluster("a", nodes=2, copies=2)


def with_kv(spec: ClusterSpec, times: int = 1) -> ClusterSpec:
    """Models whose KV takes a byte a token; all other sizes and rates are so many times what they were."""
    sizes = {one.name: times * getattr(spec.node, one.name) for one in fields(spec.node) if "bytes" in one.name}
    models = tuple(replace(one, bytes=times * one.bytes, kv_bytes_per_token=1) for one in spec.models)
    return replace(spec, node=replace(spec.node, **sizes), models=models)


class Script:
    """Loads on both workers, places what waits on the first that is ready; at the moment `at_s`, does `act`."""

    name = "script"

    def __init__(self, at_s: float, act: Callable[[ClusterState], list[Action]]) -> None:
        self._at_s, self._act, self._acted = at_s, act, False

    def decide(self, state: ClusterState, now: float) -> Plan:
        if now >= self._at_s and not self._acted:
            self._acted = True
            return Plan(tuple(self._act(state)))
        there = {one.spot.worker_id for one in state.residents()}
        actions: list[Action] = [load(state, one, "a") for one in state.workers() if one.id not in there]
        ready = [one.spot for one in state.residents() if one.state is ReplicaState.READY and one.open_slots]
        actions += [Place(one.id, ready[0]) for one in state.waiting[:1] if ready]
        return Plan(tuple(actions), None if self._acted else self._at_s)


def test_a_moved_request_stands_still_only_for_the_prefill_of_what_it_gained_meanwhile() -> None:
    done = simulate(TWO, [ask(0.0, answer=100)], Script(12.5, lambda _: [Move("0", THERE)]))
    (one,) = done.outcomes
    assert (one.moves, one.worker_id, one.first_s) == (1, "n1-w0", pytest.approx(11.5))
    had = 1 + 10
    round_s = 0.5 + 0.01 * (50 + had)
    gained = int(round_s / 0.1 + 1e-6)
    gap_s = 0.5 + 0.01 * gained
    assert one.finished_s == pytest.approx(12.5 + round_s + gap_s + 0.1 * (100 - had - gained - 1))


@pytest.mark.parametrize(("nodes", "rate"), [(2, 0.5), (1, 10.0)])
def test_kv_crosses_the_network_or_the_bus_while_the_request_runs_on_and_then_one_token_is_computed(
    nodes: int, rate: float
) -> None:
    spec = with_kv(cluster("a", nodes=nodes, workers=3 - nodes, copies=nodes, dram_bytes_per_s=10.0), 50)
    there = spot("n1-w0" if nodes == 2 else "n0-w1", "a")
    (one,) = simulate(spec, [ask(0.0, answer=400)], Script(22.5, lambda _: [Move("0", there, MoveKind.KV)])).outcomes
    assert one.first_s
    had = 1 + round((22.5 - one.first_s) / 0.1)
    copy_s = (50 + had) / (50 * rate)
    gained = int(copy_s / 0.1 + 1e-6)
    assert (one.moves, one.worker_id) == (1, there.worker_id)
    assert one.finished_s == pytest.approx(22.5 + copy_s + (0.5 + 0.01) + 0.1 * (400 - had - gained - 1))


def test_nothing_is_computed_at_the_target_for_a_copy() -> None:
    """The target's other request goes on as if nobody came, until he does."""
    spec = with_kv(TWO, 50)
    busy = [ask(0.0, answer=30), ask(12.0, answer=100)]

    def finished_s(kind: MoveKind) -> float | None:
        def act(state: ClusterState) -> list[Action]:
            return [Place("1", THERE), Move("0", THERE, kind)]

        return simulate(spec, busy, Script(12.0, act)).outcomes[1].finished_s

    copied, computed = finished_s(MoveKind.KV), finished_s(MoveKind.TOKENS)
    assert copied
    assert computed
    assert copied < computed


@pytest.mark.parametrize(("worker", "crashes"), [("n0-w0", 1), ("n1-w0", 0)])
def test_a_crash_ends_a_copy_and_the_slot_is_free_again(worker: str, crashes: int) -> None:
    script = Script(12.5, lambda _: [Move("0", THERE, MoveKind.KV)])
    requests, crash = [ask(0.0, answer=20), ask(200.0)], WorkerCrash(12.8, worker, 10.0)
    first, second = simulate(with_kv(TWO), requests, script, [crash]).outcomes
    assert (first.moves, first.crashes, first.lost) == (0, crashes, False)
    assert not second.lost


def test_what_has_no_kv_is_not_copied() -> None:
    with pytest.raises(Impossible):
        simulate(TWO, [ask(0.0, answer=100)], Script(12.5, lambda _: [Move("0", THERE, MoveKind.KV)]))


def test_a_request_that_finishes_before_it_has_moved_leaves_nothing_behind() -> None:
    done = simulate(TWO, [ask(0.0, answer=13), ask(50.0)], Script(12.5, lambda _: [Move("0", THERE)]))
    assert (done.outcomes[0].moves, done.outcomes[0].finished_s) == (0, pytest.approx(12.7))
    assert done.outcomes[1].first_s == pytest.approx(51.0)


@pytest.mark.parametrize(("worker", "crashes"), [("n0-w0", 1), ("n1-w0", 0)])
def test_a_crash_ends_a_move_and_a_request_goes_on_where_it_can(worker: str, crashes: int) -> None:
    script, crash = Script(12.5, lambda _: [Move("0", THERE)]), WorkerCrash(12.8, worker, 1000.0)
    (one,) = simulate(TWO, [ask(0.0, answer=100)], script, [crash]).outcomes
    assert (one.moves, one.crashes, one.lost) == (0, crashes, False)


def test_a_preempted_request_waits_again_and_computes_all_its_tokens_anew() -> None:
    done = simulate(TWO, [ask(0.0, answer=100)], Script(12.5, lambda _: [Preempt("0")]))
    (one,) = done.outcomes
    assert (one.preemptions, one.first_s) == (1, pytest.approx(11.5))
    had = 1 + 10
    assert one.finished_s == pytest.approx(12.5 + 0.5 + 0.01 * (50 + had) + 0.1 * (100 - had - 1))


@pytest.mark.parametrize(
    "action",
    [
        Move("0", spot("n1-w0", "b")),
        Move("7", THERE),
        Move("0", HERE),
        Preempt("7"),
        Place("0", HERE),
        Place("1", spot("n9-w0", "a")),
    ],
)
def test_what_cannot_be_is_the_policys_fault(action: Action) -> None:
    spec = cluster("a", nodes=2, copies=2, slots=1)
    with pytest.raises(Impossible):
        simulate(spec, [ask(0.0, answer=100), ask(12.0)], Script(12.5, lambda _: [action]))


def test_a_policy_sees_how_far_each_request_is_and_a_guess_of_the_rest_but_never_its_length() -> None:
    seen: list[tuple[int, float]] = []

    def look(state: ClusterState) -> list[Action]:
        seen.extend((one.emitted_tokens, one.left_s) for here in state.residents() for one in here.running)
        return []

    simulate(TWO, [ask(0.0, answer=100)], Script(12.56, look))
    assert seen == [(1 + 10, pytest.approx((FIRST_GUESS_TOKENS - 11) * 0.1))]
