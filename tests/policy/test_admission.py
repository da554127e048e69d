"""Deadlines: who is promised a first token in time, who is turned away, and when."""

import pytest

from mesh.facts import ReplicaState
from policy.actions import Load, Place, RefusalReason, Refuse
from policy.decide import Decision, decide
from policy.haul import Haul
from policy.knobs import Knobs
from policy.rates import Portion, Quantity, Rate, Rates
from policy.underway import Loads
from policy.view import View, Waiting
from tests.policy.scene import at, cluster, model, replica, store, worker

KNOBS = Knobs()
STORE = store("s1", "m@1")
FULL = worker("w1", replica("m", running=2))  # two slots, both taken
NONE: frozenset[str] = frozenset()
EVERY_LOAD = (Quantity.DISK, Quantity.INIT)


def asked(name: str, deadline_s: float | None, since_s: float = 0.0) -> Waiting:
    """For the model "m"."""
    return Waiting(name, "m", since_s, deadline_s=deadline_s)


def learnt(**seconds: float) -> Rates:
    """Rates that have been seen a hundred times: `held` of a place, `init` of a load."""
    rates = Rates()
    for name, took_s in seconds.items():
        of = {"held": "m", "init": "LlamaForCausalLM"}[name]
        for _ in range(100):
            rates.saw([Portion(Rate(Quantity(name), "", of), 1, took_s)], took_s)
    for _ in range(100):
        rates.saw([Portion(Rate(Quantity.DISK, ""), 10, 0.001)], 0.01)
    return rates


def decided(
    now: float, *waiting: Waiting, rates: Rates, members: tuple = (FULL, STORE), fresh: bool = True, **more: object
) -> Decision:
    """The decision, when all of them have just come, or none."""
    names = frozenset(one.request_id for one in waiting) if fresh else NONE
    facts = cluster(members, [model("m")])
    return decide(View(facts, waiting, rates=rates, fresh=names, **more), now, KNOBS)  # type: ignore[arg-type]


def refused(decision: Decision) -> list[str]:
    """Who is turned away for a deadline."""
    refusals = [action for action in decision.actions if isinstance(action, Refuse)]
    assert all(one.reason is RefusalReason.TOO_LATE for one in refusals)
    return [one.request_id for one in refusals]


def test_without_a_deadline_nobody_is_turned_away_for_one() -> None:
    assert refused(decided(0.0, asked("r", None), rates=learnt(held=1000.0))) == []


def test_who_cannot_have_a_slot_in_time_is_turned_away_at_once() -> None:
    rates = learnt(held=10.0)  # a slot in 5 s on average, and within 12 s nine times in ten
    assert refused(decided(0.0, asked("r", 3.0), rates=rates)) == ["r"]
    assert refused(decided(0.0, asked("r", 20.0), rates=rates)) == []


def test_each_waits_behind_those_that_are_served_before_it() -> None:
    waiting = [asked(f"r{n}", 30.0) for n in range(12)]
    turned_away = refused(decided(0.0, *waiting, rates=learnt(held=10.0)))
    assert turned_away == [f"r{n}" for n in range(len(waiting) - len(turned_away), 12)]
    assert 6 <= len(turned_away) <= 10


def test_a_refusal_says_when_it_would_have_been_in_time() -> None:
    (refusal,) = decided(0.0, asked("r", 3.0), rates=learnt(held=10.0)).actions
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_s
    in_time = decided(0.0, asked("r", 3.0 + refusal.retry_after_s + 0.1), rates=learnt(held=10.0))
    assert refused(in_time) == []


def test_what_was_never_seen_is_no_reason_to_turn_anybody_away() -> None:
    assert refused(decided(0.0, asked("r", 1e-3), rates=Rates())) == []
    empty = (worker("w1"), STORE)
    assert decided(0.0, asked("r", 1e-3), rates=Rates(), members=empty).actions == (Load(at("w1"), "s1"),)


def test_who_was_promised_a_token_is_given_up_only_when_it_is_hopeless() -> None:
    rates, waits = learnt(held=10.0), asked("r", 20.0)
    promised = decided(0.0, waits, rates=rates)
    assert promised.actions == ()
    ((name, late_at_s),) = promised.again
    assert (name, promised.look_again_s) == ("r", late_at_s)
    assert 17.0 < late_at_s < 20.0
    assert refused(decided(late_at_s - 0.01, waits, rates=rates, fresh=False)) == []
    assert refused(decided(late_at_s, waits, rates=rates, fresh=False)) == ["r"]


def test_nobody_is_placed_whose_time_is_over() -> None:
    free = (worker("w1", replica("m")), STORE)
    assert decided(5.0, asked("r", 5.1), rates=Rates(), members=free, fresh=False).actions == (Place("r", at("w1")),)
    assert refused(decided(5.0, asked("r", 5.0), rates=Rates(), members=free, fresh=False)) == ["r"]


def test_nothing_is_loaded_for_whom_the_load_would_come_too_late() -> None:
    empty = (worker("w1"), STORE)
    rates = learnt(init=4.0)
    decision = decided(0.0, asked("r", 3.0), rates=rates, members=empty)
    assert decision.actions == (Refuse("r", RefusalReason.TOO_LATE, None),)
    assert decided(0.0, asked("r", 9.0), rates=rates, members=empty).actions == (Load(at("w1"), "s1"),)


def test_who_could_wait_is_not_turned_away_with_whom_could_not() -> None:
    empty = (worker("w1"), STORE)
    decision = decided(0.0, asked("hasty", 3.0), asked("patient", None), rates=learnt(init=4.0), members=empty)
    assert refused(decision) == ["hasty"]
    assert Load(at("w1"), "s1") in decision.actions


@pytest.mark.parametrize(("deadline_s", "late"), [(3.0, True), (9.0, False)])
def test_a_load_under_way_counts_with_what_is_left_of_it(deadline_s: float, late: bool) -> None:
    rates, loads = learnt(init=4.0), Loads()
    loads.begin(at("w1"), Haul("w1", "n1", "LlamaForCausalLM", disk_bytes=10), 0.0, rates, KNOBS)
    members = (worker("w1", replica("m", state=ReplicaState.LOADING)), STORE)
    spots = frozenset({at("w1")})
    decision = decided(0.0, asked("r", deadline_s), rates=rates, members=members, loads=loads, loading=spots)
    assert refused(decision) == ["r"] * late
