"""Whatever has happened: what holds of every decision that moves requests, and of workers that are to become empty."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from policy.actions import MakeWay, Move, MoveReason
from policy.decide import Decision, decide
from tests.policy.history import KNOBS, History, anew
from tests.policy.scene import store, worker

MOVING = replace(KNOBS, moves=True, crowding=0.5, held_s=40.0, max_waiting=50, move_rest_s=10.0)
MEMBERS = (
    *(worker(f"w{n}", memory=36, slots=4, node=f"n{n % 2 + 1}") for n in range(4)),
    store("s1", "a@1", "a@2", "b@1", "b@2", "c@1", "d@1"),
    store("s2", "a@1", "b@1", node="n2"),
)
THINGS = (
    ("ask",) * 12 + ("complete",) * 6 + ("leave",) * 5 + ("arrive",) * 3 + ("wait", "wait", "turn", "report", "update")
)
STEPS, MOST_SETTLING = 150, 2000
HISTORIES = pytest.mark.parametrize("seed", range(16))


def moves(decision: Decision) -> list[Move]:
    """That are decided."""
    return [one for one in decision.actions if isinstance(one, Move)]


def begun(seed: int) -> tuple[History, random.Random]:
    """A history, and what happens in it."""
    return History(MEMBERS, MOVING), random.Random(seed)


@HISTORIES
def test_each_worker_sends_or_gets_one_request_at_a_time(seed: int) -> None:
    history, chance = begun(seed)
    for _ in range(STEPS):
        history.happen(chance.choice(THINGS), chance.randrange(840))
        view, decision = history.decide()
        parts = Counter(spot.worker_id for one in (view.moving.goals, view.moving.sources) for spot in one.values())
        for one in moves(decision):
            parts.update((view.where[one.request_id].worker_id, one.to.worker_id))
        assert set(parts.values()) <= {1}
        history.act(decision)


@HISTORIES
def test_requests_move_only_to_a_slot_of_the_same_version_on_a_worker_that_stays(seed: int) -> None:
    history, chance = begun(seed)
    for _ in range(STEPS):
        history.happen(chance.choice(THINGS), chance.randrange(840))
        view, decision = history.decide()
        for one in moves(decision):
            goal, source = view.replicas.seat(one.to), view.where[one.request_id]
            assert goal
            assert (source.model, source.digest) == (one.to.model, one.to.digest)
            assert view.settled(goal)
            assert view.crowd(goal) < goal.slots
            assert not view.cluster.is_draining(goal.member)
            run = view.runs[source][one.request_id]
            assert run.moved_s is None or history.now >= run.moved_s + MOVING.move_rest_s
        history.act(decision)


@HISTORIES
def test_who_is_not_looked_at_would_not_have_moved(seed: int) -> None:
    """But for those who would make way: that is weighed when the version that they would make way for is looked at."""
    history, chance = begun(seed)
    for _ in range(STEPS):
        history.happen(chance.choice(THINGS), chance.randrange(840))
        view, decision = history.decide()
        everybody = decide(anew(view), history.now, MOVING)
        if not any(isinstance(one, MakeWay) for one in everybody.actions):
            assert decision.actions == everybody.actions
            assert decision.look_again_s == everybody.look_again_s
        history.act(decision)


@HISTORIES
def test_equal_moments_give_equal_moves_and_stay_as_they_were(seed: int) -> None:
    history, chance = begun(seed)
    for _ in range(STEPS):
        history.happen(chance.choice(THINGS), chance.randrange(840))
        view, decision = history.decide()
        before = dict(view.moving.goals), dict(view.moving.sources), dict(view.placed)
        assert decide(view, history.now, MOVING) == decision
        assert (view.moving.goals, view.moving.sources, view.placed) == before
        history.act(decision)


def test_some_of_these_histories_move_requests_for_every_reason() -> None:
    """Else what holds of moves would hold of nothing."""
    reasons: Counter[str] = Counter()
    for seed in range(16):
        history, chance = begun(seed)
        for _ in range(STEPS):
            history.happen(chance.choice(THINGS), chance.randrange(840))
            _, decision = history.decide()
            reasons.update(one.reason for one in moves(decision))
            history.act(decision)
    assert all(reasons[one] >= 5 for one in (MoveReason.DRAIN, MoveReason.BALANCE))


def settle(history: History, chance: random.Random) -> int:
    """Lets all that is decided come to its end, and time pass, until nothing happens any more; nobody ends or comes.
    Returns how many moves that took. AssertionError if there is no end."""
    count = 0
    for _ in range(MOST_SETTLING):
        _, decision = history.decide()
        history.act(decision)
        count += len(moves(decision))
        under_way = [*history.books.loading, *history.books.unloading, *history.books.moving.goals]
        if not decision.actions and not under_way:
            if decision.look_again_s is None or decision.look_again_s > history.now + 100.0:
                return count
            history.now = decision.look_again_s
        history.happen(chance.choice(("complete", "arrive")), 1 + 2 * chance.randrange(420))
        history.now += 0.1
    raise AssertionError("no end")


@HISTORIES
def test_a_worker_that_is_to_become_empty_becomes_empty_though_no_answer_ends(seed: int) -> None:
    history, chance = begun(seed)
    for _ in range(8):
        history.happen("ask", 1 + 5 * chance.randrange(50))  # of models that workers have room for
        history.act(history.decide()[1])
    settle(history, chance)
    busy = Counter(spot.worker_id for spot, runs in history.books.runs.items() for _ in runs)
    assert sum(busy.values()) == 8
    (worker_id, count), *_ = busy.most_common(1)
    history.drains = frozenset({f"worker/{worker_id}"})
    assert settle(history, chance) >= count
    assert not [spot for spot in history.books.runs if spot.worker_id == worker_id]
    member = history.members[f"worker/{worker_id}"].worker
    assert member
    assert not member.replicas
    assert sum(map(len, history.books.runs.values())) == 8
