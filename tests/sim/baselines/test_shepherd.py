from policy.actions import Load, Place, Unload, UnloadReason
from sim.baselines.shepherd import Shepherd
from sim.policy import Preempt, spot
from tests.sim.baselines.scene import node, resident, running, state, worker

FAR = node("n0", worker("n0-w0"))


def test_the_closest_worker_is_cleared_where_that_gains_three_times_what_is_lost() -> None:
    near = node("n1", worker("n1-w0", resident("n1-w0", "b", running("9", 60.0))), dram="ab")
    policy = Shepherd()
    assert policy.decide(state(FAR, near, waiting="a"), 0.0).actions == (
        Preempt("9"),
        Unload(spot("n1-w0", "b"), UnloadReason.EVICTED),
    )
    cleared = state(FAR, node("n1", worker("n1-w0"), dram="ab"), waiting="a")
    assert policy.decide(cleared, 0.3).actions == (Load(spot("n1-w0", "a"), "store-n1"),)


def test_nobody_is_stopped_for_less_or_twice_in_a_while() -> None:
    two = resident("n1-w0", "b", running("8", 60.0), running("9", 60.0))
    dear = state(FAR, node("n1", worker("n1-w0", two), disk="ab"), waiting="a")
    assert [type(one) for one in Shepherd().decide(dear, 0.0).actions] == [Load]
    near = node("n1", worker("n1-w0", resident("n1-w0", "b", running("9", 60.0))), dram="ab")
    policy = Shepherd()
    policy.decide(state(FAR, near, waiting="a"), 0.0)
    again = policy.decide(state(FAR, near, waiting="c"), 10.0)
    assert not any(isinstance(one, Preempt) for one in again.actions)


def test_who_was_stopped_comes_after_whom_it_was_for() -> None:
    policy = Shepherd()
    near = node("n1", worker("n1-w0", resident("n1-w0", "b", running("9", 60.0))), dram="ab")
    policy.decide(state(FAR, near, waiting="a"), 0.0)
    cleared = node("n1", worker("n1-w0"), dram="ab")
    then = policy.decide(state(FAR, cleared, waiting="ba"), 0.3)
    assert then.actions == (Load(spot("n1-w0", "a"), "store-n1"), Load(spot("n0-w0", "b"), "store-n0"))


def test_a_replica_that_somebody_has_just_been_placed_on_is_not_cleared() -> None:
    near = node("n1", worker("n1-w0", resident("n1-w0", "b", running("9", 60.0))), dram="ab")
    crowded = Shepherd().decide(state(FAR, near, waiting="ba"), 0.0)
    assert crowded.actions == (Place("0", spot("n1-w0", "b")), Load(spot("n0-w0", "a"), "store-n0"))
