"""Updates: how the current version of a model takes over from the former one, and who answers meanwhile."""

from typing import Any

from mesh.facts import Member, ModelEntry, ReplicaFacts, ReplicaState
from policy.actions import Action, Load, Place, RefusalReason, Refuse, Unload, UnloadReason
from policy.decide import Decision, decide
from policy.knobs import Knobs
from policy.view import Spot, View, Waiting
from tests.policy.scene import REPLICA, WEIGHTS, at, cluster, model, replica, request, store, worker

KNOBS = Knobs(keep_alive_s=60.0, hold_s=120.0, max_waiting=2, distrust_s=5.0)
NOW = 1000.0
M, N = model("m", digest="m@2", previous="m@1"), model("n")
STORE = store("s1", "m@1", "m@2", "n@1")
OLD, NEW = at("w1"), at("w1", digest="m@2")
SUPERSEDED, EVICTED = UnloadReason.SUPERSEDED, UnloadReason.EVICTED


def decided(*members: Member, models: tuple[ModelEntry, ...] = (M, N), now: float = NOW, **rest: Any) -> Decision:
    """What is decided while m has been updated from m@1 to m@2; every idle replica is so since NOW."""
    found = [(w.id, r) for w in members if w.worker for r in w.worker.replicas]
    rest["idle_since_s"] = {Spot(w, r.model, r.digest): NOW for w, r in found if not r.running} | rest.get("idle", {})
    rest.pop("idle", None)
    return decide(View(cluster([*members, STORE], models), **rest), now, KNOBS)


def actions(*members: Member, **rest: Any) -> tuple[Action, ...]:
    """What is done for one request that waits for m."""
    rest.setdefault("waiting", (request("r", since_s=NOW),))
    return decided(*members, **rest).actions


def new(**more: Any) -> ReplicaFacts:
    """A replica of the current version."""
    return replica("m", digest="m@2", **more)


def test_the_former_version_answers_while_the_current_one_is_loaded_beside_it() -> None:
    roomy = worker("w1", replica("m", running=1), memory=2 * REPLICA)
    assert actions(roomy) == (Place("r", OLD), Load(NEW, "s1"))
    assert actions(roomy, loading=frozenset({NEW})) == (Place("r", OLD),)


def test_it_is_loaded_on_another_worker_when_that_has_the_room() -> None:
    assert actions(worker("w1", replica("m")), worker("w2")) == (Place("r", OLD), Load(at("w2", digest="m@2"), "s1"))


def test_requests_go_to_the_current_version_as_soon_as_it_answers_and_the_former_one_goes_when_idle() -> None:
    both = worker("w1", replica("m"), new(running=1), memory=2 * REPLICA)
    assert actions(both) == (Place("r", NEW), Unload(OLD, SUPERSEDED))
    still_busy = worker("w1", replica("m", running=1), new(), memory=2 * REPLICA)
    assert actions(still_busy) == (Place("r", NEW),)


def test_a_full_current_version_sends_nobody_back_to_the_former_one() -> None:
    both = worker("w1", replica("m", running=1), new(running=2), memory=2 * REPLICA)
    assert actions(both) == ()


def test_the_current_version_answers_only_when_its_load_command_has_ended() -> None:
    both = worker("w1", replica("m"), new(), memory=2 * REPLICA)
    assert actions(both, loading=frozenset({NEW})) == (Place("r", OLD),)


def test_a_warm_model_that_nobody_asks_stays_warm_through_an_update() -> None:
    assert decided(worker("w1", replica("m"), memory=2 * REPLICA)).actions == (Load(NEW, "s1"),)


def test_without_room_for_both_an_idle_former_version_makes_way_at_once() -> None:
    assert decided(worker("w1", replica("m"))).actions == (Unload(OLD, SUPERSEDED),)
    assert actions(worker("w1", replica("m"))) == (Unload(OLD, SUPERSEDED),)


def test_without_room_for_both_a_busy_former_version_finishes_and_takes_nothing_new() -> None:
    busy = worker("w1", replica("m", running=1))
    assert actions(busy) == ()
    assert actions(worker("w1", replica("m")), placed={OLD: 1}) == ()


def test_after_the_former_version_has_gone_the_current_one_is_loaded_for_those_who_wait() -> None:
    assert actions(worker("w1")) == (Load(NEW, "s1"),)


def test_only_one_of_several_full_workers_makes_way_and_the_others_answer_meanwhile() -> None:
    members = [worker("w1", replica("m", running=1), slots=4), worker("w2", replica("m", running=2), slots=4)]
    assert actions(*members) == (Place("r", at("w2")),)
    leaving = worker("w1", replica("m"), slots=4)
    assert actions(leaving, members[1], unloading=frozenset({OLD})) == (Place("r", at("w2")),)


def test_while_a_model_is_in_use_idle_ones_make_room_for_its_current_version_before_the_former_does() -> None:
    members = [worker("w1", replica("m", running=1), replica("n"), memory=2 * REPLICA)]
    assert actions(*members) == (Place("r", OLD), Unload(at("w1", "n"), EVICTED))
    assert actions(*members, unloading=frozenset({at("w1", "n")})) == (Place("r", OLD),)


def test_a_model_that_nobody_uses_takes_no_other_ones_memory_for_an_update() -> None:
    members = [worker("w1", replica("m"), replica("n"), memory=2 * REPLICA)]
    assert decided(*members).actions == (Unload(OLD, SUPERSEDED),)


def test_a_former_version_whose_memory_is_not_enough_goes_together_with_what_idles_beside_it() -> None:
    larger = model("m", digest="m@2", weights=2 * WEIGHTS, previous="m@1")
    members = [worker("w1", replica("m"), replica("n"), memory=2 * REPLICA)]
    found = actions(*members, models=(larger, N))
    assert set(found) == {Unload(OLD, SUPERSEDED), Unload(at("w1", "n"), EVICTED)}
    busy = [worker("w1", replica("m", running=1), replica("n"), memory=2 * REPLICA)]
    assert actions(*busy, models=(larger, N)) == ()  # the other need not go before its time


def test_a_former_version_answers_on_when_the_current_one_fits_nowhere_or_nobody_has_it() -> None:
    huge = model("m", digest="m@2", weights=WEIGHTS + 1, previous="m@1")
    assert actions(worker("w1", replica("m", running=1)), models=(huge,)) == (Place("r", OLD),)
    assert actions(worker("w1", replica("m", running=2)), models=(huge,)) == ()
    lost = model("m", digest="m@3", previous="m@1")
    assert actions(worker("w1", replica("m", running=1)), models=(lost,)) == (Place("r", OLD),)
    assert actions(worker("w1", replica("m", running=2)), models=(lost,)) == ()
    assert actions(worker("w1"), models=(lost,)) == (Refuse("r", RefusalReason.NO_CHECKPOINT, 5.0),)


def test_a_version_that_could_not_be_loaded_is_tried_again_later_and_the_former_answers_meanwhile() -> None:
    roomy = worker("w1", replica("m", running=1), memory=2 * REPLICA)
    unfit: dict[str, Any] = {"unfit_until_s": {"m@2": NOW + 60.0}}
    assert actions(roomy, **unfit) == (Place("r", OLD),)
    assert decided(roomy, **unfit) == Decision((), NOW + 60.0)
    assert decided(roomy, now=NOW + 60.0, **unfit).actions == (Load(NEW, "s1"),)
    full = worker("w1", replica("m", running=2), memory=2 * REPLICA)
    assert actions(full, **unfit) == ()


def test_a_version_that_nothing_can_stand_in_for_is_tried_for_each_request() -> None:
    assert actions(worker("w1"), unfit_until_s={"m@2": NOW + 60.0}) == (Load(NEW, "s1"),)


def test_rather_than_being_refused_a_request_goes_to_a_version_that_is_making_way() -> None:
    busy = worker("w1", replica("m", running=1), slots=4)
    late = request("late", since_s=NOW - 120.0)
    assert actions(busy, waiting=(late,)) == (Place("late", OLD),)
    crowd = tuple(request(f"r{n}", since_s=NOW) for n in range(4))
    assert actions(busy, waiting=crowd) == (Place("r2", OLD), Place("r3", OLD))


def test_a_request_that_only_the_current_version_can_answer_waits_for_it() -> None:
    roomy = worker("w1", replica("m", running=1), memory=2 * REPLICA)
    waiting = (request("r", since_s=NOW, current_only=True),)
    assert actions(roomy, waiting=waiting) == (Load(NEW, "s1"),)
    assert actions(roomy, waiting=waiting, loading=frozenset({NEW})) == ()


def test_a_version_that_has_been_relieved_never_answers_again() -> None:
    """Its successor has gone to zero while a long answer still runs here."""
    roomy = worker("w1", replica("m", running=1), memory=2 * REPLICA)
    assert actions(roomy, retired=frozenset({OLD})) == (Load(NEW, "s1"),)
    assert decided(roomy, retired=frozenset({OLD})) == Decision((), None)


def test_a_rollback_finds_the_former_version_still_there_and_goes_back_at_once() -> None:
    back = model("m", digest="m@1", previous="m@2")
    both = worker("w1", replica("m", running=1), new(running=1), memory=2 * REPLICA)
    assert actions(both, models=(back,)) == (Place("r", OLD),)


def test_a_rollback_while_the_newer_version_loads_waits_for_nothing() -> None:
    back = model("m", digest="m@1", previous="m@2")
    members = worker("w1", replica("m", running=1), new(state=ReplicaState.LOADING), memory=2 * REPLICA)
    assert actions(members, models=(back,), loading=frozenset({NEW})) == (Place("r", OLD),)


def begun(digest: str, *excluded: str) -> tuple[Waiting, ...]:
    """A request whose answer has begun with a version, on workers that have failed it since."""
    return (request("r", since_s=NOW, digest=digest, excluded=excluded),)


def test_an_answer_goes_on_with_the_version_that_began_it_whatever_answers_others() -> None:
    both = worker("w1", replica("m", running=1), new(), memory=2 * REPLICA)
    assert actions(both, waiting=begun("m@1")) == (Place("r", OLD),)
    assert actions(both, waiting=begun("m@1"), retired=frozenset({OLD})) == (Place("r", OLD),)
    assert actions(both, waiting=begun("m@2")) == (Place("r", NEW),)
    assert actions(both, waiting=begun("m@1"), models=(N,)) == (Place("r", OLD), Unload(NEW, SUPERSEDED))


def test_an_answer_that_has_begun_waits_for_a_slot_of_its_version() -> None:
    full = worker("w1", replica("m", running=2), new(), memory=2 * REPLICA)
    assert actions(full, waiting=begun("m@1")) == ()
    held_long = decided(full, waiting=begun("m@1"), now=NOW + KNOBS.hold_s).actions
    (refused,) = [action for action in held_long if isinstance(action, Refuse)]
    assert refused.reason is RefusalReason.HELD_TOO_LONG


def test_an_answer_whose_version_is_nowhere_any_more_is_refused_for_good() -> None:
    gone = (Refuse("r", RefusalReason.VERSION_GONE, None),)
    assert actions(worker("w1", new()), waiting=begun("m@1")) == gone
    both = worker("w1", replica("m", running=1), new(), memory=2 * REPLICA)
    assert actions(both, waiting=begun("m@1", "w1")) == gone
    assert actions(both, waiting=begun("m@1"), unloading=frozenset({OLD})) == gone


def test_an_answer_that_the_current_version_began_has_it_loaded_and_goes_to_no_former_one() -> None:
    roomy = worker("w1", replica("m", running=1), memory=2 * REPLICA)
    assert actions(roomy, waiting=begun("m@2")) == (Load(NEW, "s1"),)
    assert actions(roomy, waiting=begun("m@2"), loading=frozenset({NEW})) == ()


def test_the_end_of_distrust_is_looked_at_while_an_update_waits_for_it() -> None:
    busy = worker("w1", replica("m", running=1), memory=2 * REPLICA)
    assert decided(busy, distrusted_until_s={"w1": NOW + 3.0}) == Decision((), NOW + 3.0)
