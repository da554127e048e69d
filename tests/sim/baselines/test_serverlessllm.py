from mesh.facts import ReplicaState
from policy.actions import Load, Move, Unload, UnloadReason
from sim.baselines.serverlessllm import ServerlessLlm
from sim.policy import LoadState, spot
from sim.run import simulate
from tests.sim.baselines.scene import node, resident, running, state, worker
from tests.sim.paper import ask, cluster

BUSY = node("n0", worker("n0-w0", resident("n0-w0", "c", running("9", 60.0))), disk="a")
THERE = spot("n1-w0", "c")


def beside(*residents, dram: str = "c"):  # type: ignore[no-untyped-def]
    return node("n1", worker("n1-w0", *residents), dram=dram)


def test_what_runs_at_the_closest_server_goes_on_elsewhere_step_by_step() -> None:
    policy = ServerlessLlm()
    assert policy.decide(state(BUSY, beside(), waiting="a"), 0.0).actions == (Load(THERE, "store-n1"),)
    coming = beside(resident("n1-w0", "c", state=ReplicaState.LOADING))
    assert policy.decide(state(BUSY, coming, waiting="a"), 1.0).actions == ()
    ready = beside(resident("n1-w0", "c", idle_s=1.5))
    assert policy.decide(state(BUSY, ready, waiting="a"), 1.5).actions == (Move("9", THERE),)
    both = beside(resident("n1-w0", "c", running("9")))
    assert policy.decide(state(BUSY, both, waiting="a"), 1.6).actions == ()
    left = node("n0", worker("n0-w0", resident("n0-w0", "c", idle_s=2.5)), disk="a")
    done = policy.decide(state(left, both, waiting="a"), 2.5)
    assert done.actions == (Unload(spot("n0-w0", "c"), UnloadReason.EVICTED),)
    going = node("n0", worker("n0-w0", resident("n0-w0", "c", state=ReplicaState.DRAINING)), disk="a")
    assert policy.decide(state(going, both, waiting="a"), 2.6).actions == ()
    free = node("n0", worker("n0-w0"), disk="a")
    assert policy.decide(state(free, both, waiting="a"), 2.8).actions == (Load(spot("n0-w0", "a"), "store-n0"),)


def test_what_is_still_on_its_way_from_elsewhere_is_not_told_to_go_on() -> None:
    policy, whence = ServerlessLlm(), node("n2", worker("n2-w0", resident("n2-w0", "c", running("9"), running("8"))))
    assert policy.decide(state(BUSY, beside(), whence, waiting="a"), 0.0).actions == (Load(THERE, "store-n1"),)
    ready = beside(resident("n1-w0", "c", idle_s=1.5))
    told = policy.decide(state(BUSY, ready, whence, waiting="a"), 1.5).actions
    assert not [action for action in told if isinstance(action, Move)]


def test_nothing_moves_where_another_load_is_sooner_or_when_nobody_waits_any_more() -> None:
    far = ServerlessLlm().decide(state(BUSY, beside(dram=""), waiting="a"), 0.0)
    assert far.actions == (Load(spot("n1-w0", "a"), "store-n1"),)
    policy = ServerlessLlm(lazy=True)
    policy.decide(state(BUSY, beside(), waiting="a"), 0.0)
    assert policy.decide(state(BUSY, beside(resident("n1-w0", "c", idle_s=1.5))), 1.5).actions == ()


def test_loads_come_one_after_another_on_a_disk_and_beside_each_other_from_memory() -> None:
    here = node("n0", worker("n0-w0"), worker("n0-w1"), disk="ab")
    plan = ServerlessLlm().decide(state(here, waiting="ab"), 0.0)
    assert (plan.actions, plan.look_again_s) == ((Load(spot("n0-w0", "a"), "store-n0"),), 10.0)
    under_way = worker("n0-w0", resident("n0-w0", "a", state=ReplicaState.LOADING))
    through = node("n0", under_way, worker("n0-w1"), disk="ab", loads=(LoadState(spot("n0-w0", "a"), 0.0, 0),))
    assert ServerlessLlm().decide(state(through, waiting="b"), 10.0).actions == (Load(spot("n0-w1", "b"), "store-n0"),)
    near = node("n0", worker("n0-w0"), worker("n0-w1"), dram="ab")
    assert len(ServerlessLlm().decide(state(near, waiting="ab"), 0.0).actions) == 2


def test_a_replica_stays_for_as_long_as_its_load_took_and_the_lazy_ones_longer() -> None:
    load_s, prefill_s, end_s = 10.5, 1.0, 11.7
    requests = [ask(0.0), ask(end_s + load_s + 1.0)]
    done, lazy = (
        simulate(cluster("a"), requests, ServerlessLlm()),
        simulate(cluster("a"), requests, ServerlessLlm(lazy=True)),
    )
    latencies = [[round(one.latency_s or 0.0, 6) for one in run.outcomes] for run in (done, lazy)]
    again_s = 1.5
    assert latencies == [[load_s + prefill_s, again_s + prefill_s], [load_s + prefill_s, prefill_s]]
    soon = simulate(cluster("a"), [ask(0.0), ask(end_s + load_s - 0.1)], ServerlessLlm())
    assert len(soon.loads) == 1


def test_rates_are_learnt_from_what_loads_took() -> None:
    policy = ServerlessLlm(lazy=True)
    other = node("n1", worker("n1-w0"))
    slow = node("n0", worker("n0-w0", memory=24), disk="ab")
    policy.decide(state(slow, other, waiting="a"), 0.0)
    took_ten_times = 105.0
    loaded = node("n0", worker("n0-w0", resident("n0-w0", "a", idle_s=took_ten_times), memory=24), disk="ab")
    then = policy.decide(state(loaded, other, waiting="b"), took_ten_times)
    assert then.actions == (Load(spot("n1-w0", "b"), "store-n1"),)
