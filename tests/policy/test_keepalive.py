"""Keep-alive: when an idle replica goes, and why."""

from mesh.facts import Member, ModelEntry, ReplicaState
from policy.actions import Action, Unload, UnloadReason
from policy.decide import Decision, decide
from policy.knobs import Knobs
from policy.view import View
from tests.policy.scene import REPLICA, at, cluster, model, replica, store, worker

KNOBS = Knobs(keep_alive_s=60.0)
SPOT = at("w1")
IDLE = (Unload(at("w1"), UnloadReason.IDLE),)
SUPERSEDED = (Unload(at("w1"), UnloadReason.SUPERSEDED),)


def decided(
    now: float, *models: ModelEntry, member: Member | None = None, busy: int = 0, distrusted_until_s: float = 0.0
) -> Decision:
    """With a replica of m on w1, idle since 100."""
    view = View(
        cluster([member or worker("w1", replica("m")), store("s1", "m@1")], models),
        idle_since_s={SPOT: 100.0},
        placed={SPOT: busy} if busy else {},
        distrusted_until_s={"w1": distrusted_until_s},
    )
    return decide(view, now, KNOBS)


def test_an_idle_replica_goes_at_the_end_of_its_keep_alive_and_not_before() -> None:
    assert decided(159.9, model("m")) == Decision((), 160.0)
    assert decided(160.0, model("m")) == Decision(IDLE, None)


def test_a_models_own_keep_alive_counts_before_the_clusters() -> None:
    assert decided(104.0, model("m", keep_alive_s=5.0)) == Decision((), 105.0)
    assert decided(105.0, model("m", keep_alive_s=5.0)).actions == IDLE
    assert decided(200.0, model("m", keep_alive_s=500.0)) == Decision((), 600.0)


def test_a_keep_alive_of_zero_unloads_as_soon_as_nothing_runs() -> None:
    assert decided(100.0, model("m", keep_alive_s=0.0)).actions == IDLE


def test_a_replica_with_requests_never_expires() -> None:
    assert decided(1e6, model("m"), busy=1) == Decision((), None)
    assert decided(1e6, model("m"), member=worker("w1", replica("m", running=1))) == Decision((), None)
    assert decided(1e6, model("m"), member=worker("w1", replica("m", waiting=1))) == Decision((), None)


def test_a_replica_that_loads_or_leaves_does_not_expire() -> None:
    for state in (ReplicaState.LOADING, ReplicaState.DRAINING):
        assert decided(1e6, model("m"), member=worker("w1", replica("m", state=state))) == Decision((), None)
    facts = cluster([worker("w1", replica("m"))], [model("m")])
    coming = View(facts, idle_since_s={SPOT: 100.0}, loading=frozenset({SPOT}))
    going = View(facts, idle_since_s={SPOT: 100.0}, unloading=frozenset({SPOT}))
    assert decide(coming, 1e6, KNOBS) == decide(going, 1e6, KNOBS) == Decision((), None)


def test_an_idle_replica_of_a_deleted_model_goes_at_once() -> None:
    assert decided(100.0).actions == SUPERSEDED


def test_an_idle_replica_of_an_older_checkpoint_goes_as_soon_as_the_current_one_answers() -> None:
    both = worker("w1", replica("m"), replica("m", digest="m@2", running=1), memory=2 * REPLICA)
    assert decided(100.0, model("m", digest="m@2"), member=both).actions == SUPERSEDED


def test_an_idle_replica_of_an_older_checkpoint_has_its_keep_alive_while_the_current_one_cannot_be_had() -> None:
    """No store holds it."""
    assert decided(159.9, model("m", digest="m@2")) == Decision((), 160.0)
    assert decided(160.0, model("m", digest="m@2")).actions == IDLE


def test_one_that_its_successor_has_relieved_goes_though_the_successor_has_gone_before_it() -> None:
    facts = cluster([worker("w1", replica("m"))], [model("m", digest="m@2")])
    view = View(facts, idle_since_s={SPOT: 100.0}, retired=frozenset({SPOT}))
    assert decide(view, 100.0, KNOBS).actions == SUPERSEDED


def test_a_busy_replica_of_an_older_checkpoint_finishes_first() -> None:
    assert decided(1e6, model("m", digest="m@2"), busy=1).actions == ()


def test_a_worker_that_could_not_be_reached_is_asked_again_when_it_is_trusted_again() -> None:
    """Else the failed unload would be repeated as fast as it fails."""
    assert decided(200.0, model("m"), distrusted_until_s=203.0) == Decision((), 203.0)
    assert decided(203.0, model("m"), distrusted_until_s=203.0).actions == IDLE


def test_each_idle_replica_has_its_own_end() -> None:
    member = worker("w1", replica("m"), replica("n"), memory=2 * REPLICA)
    idle = {SPOT: 100.0, at("w1", "n"): 130.0}
    view = View(cluster([member], [model("m"), model("n")]), idle_since_s=idle)
    found: tuple[Action, ...] = decide(view, 160.0, KNOBS).actions
    assert found == IDLE
    assert decide(view, 150.0, KNOBS).look_again_s == 160.0
