"""Busy replicas that make way: for whom, for whom not, and until when."""

from dataclasses import replace

from mesh.facts import Member, Priority
from policy.actions import Load, Place, Unload, UnloadReason, Yield
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.seat import Running
from policy.view import Waiting
from tests.policy.scene import REPLICA, at, cluster, model, replica, request, store, worker

KNOBS = Knobs(keep_alive_s=1e6, hold_s=1e6, ageing_s=30.0, yield_s=20.0)
STORE = store("s1", "m@1", "n@1", "o@1")
MODELS = (model("m"), model("n"), model("o"))
USES_N = worker("w1", replica("n", running=1))
YIELD = Yield((at("w1", "n"),), at("w1"))


def books(*members: Member, **priorities: Priority) -> Books:
    """Of a cluster where each replica has one request of a tenant of its model's name."""
    made = Books()
    made.observe(cluster([*members, STORE], MODELS))
    for member in members:
        for one in member.worker.replicas if member.worker else ():
            run = Running(f"on {one.model}", 0.0, 0, one.model, priorities.get(one.model, Priority.NORMAL))
            made.seated(run, at(member.id, one.model))
    return made


def decided(kept: Books, now: float) -> tuple[object, ...]:
    """The actions, carried out in the books."""
    decision = decide(kept.view(now), now, KNOBS)
    for action in decision.actions:
        match action:
            case Yield(spots, to):
                kept.yielding.add(spots, to)
            case Place(number, spot):
                kept.placed(number, spot, now)
            case Load():
                kept.load_began(action, now)
            case Unload(spot):
                kept.unload_began(spot)
    kept.claimed(decision.claims)
    kept.look_again(decision.again)
    return decision.actions


def asked(name: str, of: str = "m", priority: Priority = Priority.NORMAL, since_s: float = 1.0) -> Waiting:
    """A request of the tenant "asks"."""
    return replace(request(name, of, since_s=since_s), priority=priority, tenant="asks")


def test_a_busy_replica_makes_way_for_a_higher_band() -> None:
    kept = books(USES_N, n=Priority.LOW)
    kept.arrived(asked("r"))
    assert decided(kept, 2.0) == (YIELD,)


def test_it_does_not_for_one_that_has_to_wait_its_turn_until_it_has_waited_long_enough() -> None:
    kept = books(USES_N)
    kept.arrived(asked("r"))
    assert decided(kept, 2.0) == ()
    assert decided(kept, 30.9) == ()
    assert decided(kept, 31.0) == (YIELD,)


def test_it_makes_way_for_a_tenant_that_has_had_much_less() -> None:
    kept = books(USES_N)
    kept.arrived(asked("r"))
    kept.shares.had_s |= {"asks": 0.0, "n": KNOBS.yield_s}
    assert decided(kept, 2.0) == ()
    kept.arrived(asked("r2", since_s=2.0))
    kept.shares.had_s["n"] += 0.1
    assert decided(kept, 3.0) == (YIELD,)


def test_one_that_yields_takes_nothing_new_finishes_and_goes() -> None:
    kept = books(USES_N, n=Priority.LOW)
    kept.arrived(asked("r"))
    decided(kept, 2.0)
    kept.arrived(asked("n2", "n", Priority.LOW, since_s=3.0))
    assert decided(kept, 3.0) == ()  # though a slot is free
    kept.left("on n", 4.0)
    kept.observe(cluster([worker("w1", replica("n")), STORE], MODELS))
    assert decided(kept, 4.0) == (Unload(at("w1", "n"), UnloadReason.EVICTED),)


def test_it_takes_requests_again_when_nobody_waits_any_more() -> None:
    kept = books(USES_N, n=Priority.LOW)
    kept.arrived(asked("r"))
    decided(kept, 2.0)
    kept.arrived(asked("n2", "n", Priority.LOW, since_s=3.0))
    kept.left("r", 4.0)
    assert decided(kept, 4.0) == (Place("n2", at("w1", "n")),)


def test_it_takes_requests_again_when_memory_is_found_elsewhere() -> None:
    kept = books(USES_N, n=Priority.LOW)
    kept.arrived(asked("r"))
    decided(kept, 2.0)
    kept.arrived(asked("n2", "n", Priority.LOW, since_s=3.0))
    kept.observe(cluster([USES_N, worker("w2"), STORE], MODELS))
    (load,) = decided(kept, 4.0)
    assert isinstance(load, Load)
    assert (load.spot, load.tenant) == (at("w2"), "asks")
    assert decided(kept, 5.0) == (Place("n2", at("w1", "n")),)


def test_where_fewest_run_is_made_way_and_only_as_much_as_is_needed() -> None:
    both = worker("w1", replica("n", running=1), replica("o", running=1), memory=2 * REPLICA)
    kept = books(both, n=Priority.LOW, o=Priority.LOW)
    kept.seated(Running("more", 0.0, 0, "n", Priority.LOW), at("w1", "n"))
    kept.arrived(asked("r"))
    assert decided(kept, 2.0) == (Yield((at("w1", "o"),), at("w1")),)


def test_nobody_makes_way_whose_users_are_not_all_behind() -> None:
    kept = books(USES_N, n=Priority.LOW)
    kept.seated(Running("high", 0.0, 0, "n", Priority.HIGH), at("w1", "n"))
    kept.arrived(asked("r"))
    assert decided(kept, 2.0) == ()


def test_no_replica_makes_way_that_its_model_is_to_have() -> None:
    kept = books(USES_N, n=Priority.LOW)
    kept.observe(cluster([USES_N, STORE], (model("m"), replace(model("n"), min_replicas=1))))
    kept.arrived(asked("r"))
    assert decided(kept, 2.0) == ()


def test_a_few_workers_make_way_at_a_time() -> None:
    workers = [worker("w1", replica("n", running=1)), worker("w2", replica("o", running=1))]
    kept = books(*workers, n=Priority.LOW, o=Priority.LOW)
    models = {name: model(name) for name in ("m", "n", "o", "p")}
    kept.observe(cluster([*workers, store("s1", "m@1", "n@1", "o@1", "p@1")], models.values()))
    for name in ("m", "p"):
        kept.arrived(asked(f"r {name}", name))
    assert len(decided(kept, 2.0)) == 1
