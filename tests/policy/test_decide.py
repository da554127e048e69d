"""The whole decision: many requests at once, bounds on waiting, and when to look again."""

from dataclasses import replace

from mesh.facts import Member, Priority, ReplicaState
from policy.actions import Load, Place, RefusalReason, Refuse
from policy.decide import Decision, decide
from policy.knobs import Knobs
from policy.view import Spot, View, Waiting
from tests.policy.scene import at, cluster, model, replica, request, store, worker

KNOBS = Knobs(keep_alive_s=60.0, hold_s=120.0, max_waiting=2, distrust_s=5.0)
STORE = store("s1", "m@1", "n@1")
MODELS = (model("m"), model("n"))
LOADING = worker("w1", replica("m", state=ReplicaState.LOADING))


def decided(now: float, members: list[Member], *waiting: Waiting, **distrusted_until_s: float) -> Decision:
    """The decision for requests that wait, with every replica idle since 0."""
    idle = {Spot(w.id, r.model, r.digest): 0.0 for w in members if w.worker for r in w.worker.replicas}
    view = View(cluster(members, MODELS), waiting, idle_since_s=idle, distrusted_until_s=distrusted_until_s)
    return decide(view, now, KNOBS)


def refusals(decision: Decision) -> tuple[Refuse, ...]:
    """Those of a decision."""
    return tuple(action for action in decision.actions if isinstance(action, Refuse))


def test_nothing_to_do_means_nothing_done_and_no_look_later() -> None:
    assert decided(0.0, [worker("w1"), STORE]) == Decision((), None)


def test_requests_are_placed_in_the_order_of_their_arrival() -> None:
    one_slot = worker("w1", replica("m"), slots=1)
    first, second = request("first"), request("second", since_s=1.0)
    assert decided(2.0, [one_slot, STORE], first, second).actions == (Place("first", at("w1")),)


def test_a_blocked_request_does_not_block_those_of_another_model() -> None:
    full, free = worker("w1", replica("m", running=2)), worker("w2", replica("n", running=1))
    blocked, lucky = request("blocked", "m"), request("lucky", "n", since_s=1.0)
    assert decided(2.0, [full, free, STORE], blocked, lucky).actions == (Place("lucky", at("w2", "n")),)


def test_a_request_waits_no_longer_than_the_hold() -> None:
    waiting = request("r", since_s=10.0)
    assert decided(129.9, [LOADING, STORE], waiting) == Decision((), 130.0)
    decision = decided(130.0, [LOADING, STORE], waiting)
    assert [(one.request_id, one.reason) for one in refusals(decision)] == [("r", RefusalReason.HELD_TOO_LONG)]
    assert decision.look_again_s is None


def test_the_hold_ends_at_the_moment_named_whatever_the_rounding() -> None:
    """8.2 + 120 - 8.2 is less than 120."""
    waiting = request("r", since_s=8.2)
    look_again_s = decided(50.0, [LOADING, STORE], waiting).look_again_s
    assert look_again_s is not None
    assert len(decided(look_again_s, [LOADING, STORE], waiting).actions) == 1


def test_more_requests_than_may_wait_for_one_model_are_refused() -> None:
    waiting = [request(f"r{n}") for n in range(4)]
    full = RefusalReason.QUEUE_FULL
    decision = decided(1.0, [LOADING, STORE], *waiting)
    assert [(one.request_id, one.reason) for one in refusals(decision)] == [("r2", full), ("r3", full)]
    assert decision.actions == refusals(decision)


def test_the_queue_of_one_model_does_not_count_against_another() -> None:
    waiting = [*(request(f"r{n}") for n in range(2)), request("other", "n")]
    assert decided(1.0, [LOADING, worker("w2"), STORE], *waiting).actions == (Load(at("w2", "n"), "s1"),)


def test_requests_that_find_a_place_do_not_count_as_waiting() -> None:
    waiting = [request(f"r{n}") for n in range(4)]
    actions = decided(1.0, [worker("w1", replica("m"), slots=4), STORE], *waiting).actions
    assert actions == tuple(Place(f"r{n}", at("w1")) for n in range(4))


def test_a_placed_request_is_no_reason_to_look_again() -> None:
    decision = decided(1.0, [worker("w1", replica("m")), STORE], request("r", since_s=1.0))
    assert decision == Decision((Place("r", at("w1")),), None)


def test_the_end_of_distrust_is_looked_at_while_somebody_waits_and_only_then() -> None:
    members = [worker("w1"), STORE]
    assert decided(1.0, members, request("r", since_s=1.0), w1=4.0).look_again_s == 4.0
    assert decided(1.0, members, w1=4.0) == Decision((), None)


def test_the_earliest_of_all_ends_is_looked_at() -> None:
    members = [worker("w1", replica("m")), worker("w2"), STORE]
    waiting = request("r", "n", since_s=1.0, excluded=["w1"])
    assert decided(40.0, members, waiting, w2=70.0).look_again_s == 60.0
    assert decided(1.0, members, waiting, w2=70.0).look_again_s == 31.0  # it counts as of the next band


def test_of_two_models_that_want_the_same_memory_the_higher_band_gets_it() -> None:
    low, high = request("low", "m"), replace(request("high", "n", since_s=1.0), priority=Priority.HIGH)
    assert decided(2.0, [worker("w1"), STORE], low, high).actions == (Load(at("w1", "n"), "s1"),)


def test_a_slot_goes_to_the_earliest_deadline() -> None:
    one_slot = worker("w1", replica("m"), slots=1)
    late, soon = (replace(request(name), deadline_s=at_s) for name, at_s in (("late", 90.0), ("soon", 30.0)))
    assert decided(2.0, [one_slot, STORE], late, soon).actions == (Place("soon", at("w1")),)


def test_who_waits_longest_is_the_last_to_find_the_queue_full_unless_its_band_is_lower() -> None:
    waiting = [replace(request("low"), priority=Priority.LOW), request("r1", since_s=1.0), request("r2", since_s=2.0)]
    (refusal,) = decided(2.0, [LOADING, STORE], *waiting).actions
    assert isinstance(refusal, Refuse)
    assert (refusal.request_id, refusal.reason) == ("low", RefusalReason.QUEUE_FULL)


def test_a_load_says_whose_request_demands_it() -> None:
    (action,) = decided(1.0, [worker("w1"), STORE], replace(request("r"), tenant="waders")).actions
    assert isinstance(action, Load)
    assert action.tenant == "waders"
