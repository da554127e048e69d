"""How many replicas a model has."""

from dataclasses import replace

from mesh.facts import Member, ModelEntry
from policy.actions import Load, LoadReason, Place, Unload, UnloadReason
from policy.books import Books
from policy.decide import Decision, decide
from policy.knobs import Knobs
from tests.policy.scene import REPLICA, at, cluster, model, replica, request, store, worker

NOW = 1000.0
KNOBS = Knobs(held_s=100.0)
STORE = store("s1", "m@1", "n@1")


def books_of(*members: Member, **bounds: int) -> Books:
    """With a model m that has these bounds, and a model n."""
    books = Books()
    models: list[ModelEntry] = [replace(model("m"), **bounds), model("n")]
    books.observe(cluster([*members, STORE], models))
    return books


def decided(books: Books, now: float = NOW, knobs: Knobs = KNOBS) -> Decision:
    """A decision on what the books know."""
    return decide(books.view(now), now, knobs)


def loads(decision: Decision) -> list[tuple[str, LoadReason]]:
    """Where something is loaded, and why."""
    return [(a.spot.worker_id, a.reason) for a in decision.actions if isinstance(a, Load)]


def test_a_model_gets_the_replicas_that_it_is_to_have_though_nobody_asks() -> None:
    books = books_of(worker("w1"), worker("w2"), worker("w3"), min_replicas=2)
    assert loads(decided(books)) == [("w1", LoadReason.MINIMUM), ("w2", LoadReason.MINIMUM)]


def test_what_is_there_or_on_its_way_counts_as_had() -> None:
    books = books_of(worker("w1", replica("m")), worker("w2"), worker("w3"), min_replicas=2)
    [load] = [a for a in decided(books).actions if isinstance(a, Load)]
    books.load_began(load, NOW)
    assert decided(books, NOW + 1).actions == ()


def test_an_idle_replica_of_another_model_makes_room_for_one_that_is_to_be_there() -> None:
    books = books_of(worker("w1", replica("n")), min_replicas=1)
    first = decided(books)
    assert first.actions == (Unload(at("w1", "n"), UnloadReason.EVICTED),)
    books.claimed(first.claims)
    books.unload_began(at("w1", "n"))
    assert decided(books, NOW + 1).actions == ()
    books.observe(cluster([worker("w1"), STORE], [replace(model("m"), min_replicas=1), model("n")]))
    books.unload_ended(at("w1", "n"))
    assert loads(decided(books, NOW + 2)) == [("w1", LoadReason.MINIMUM)]


def test_a_replica_that_is_to_be_there_neither_expires_nor_makes_room() -> None:
    books = books_of(worker("w1", replica("m")), min_replicas=1)
    decided(books, knobs=Knobs(keep_alive_s=5.0))
    books.arrived(request("r1", "n", since_s=NOW))
    assert decided(books, NOW + 60.0, Knobs(keep_alive_s=5.0)).actions == ()


def test_a_checkpoint_that_cannot_be_loaded_is_tried_again_when_its_time_has_come() -> None:
    books = books_of(worker("w1"), min_replicas=1)
    books.unfit("m@1", NOW + 60.0)
    assert decided(books) == Decision((), NOW + 60.0)
    assert loads(decided(books, NOW + 60.0)) == [("w1", LoadReason.MINIMUM)]


def test_as_many_replicas_come_at_once_as_a_crowd_is_worth() -> None:
    books = books_of(worker("w1"), worker("w2"), worker("w3"))
    for number in range(5):
        books.arrived(request(f"r{number}", since_s=NOW))
    reasons = [reason for _, reason in loads(decided(books))]
    assert reasons == [LoadReason.DEMAND, LoadReason.SCALE_OUT, LoadReason.SCALE_OUT]


def test_nothing_more_comes_where_a_slot_will_be_free_sooner() -> None:
    books = books_of(worker("w1"), worker("w2"))
    for number in range(3):
        books.arrived(request(f"r{number}", since_s=NOW))
    quick = Knobs(held_s=0.1)
    assert [reason for _, reason in loads(decided(books, knobs=quick))] == [LoadReason.DEMAND]


def test_no_more_come_than_the_model_may_have() -> None:
    books = books_of(worker("w1"), worker("w2"), worker("w3"), max_replicas=2)
    for number in range(9):
        books.arrived(request(f"r{number}", since_s=NOW))
    assert len(loads(decided(books))) == 2
    full = books_of(worker("w1", replica("m", running=2)), worker("w2"), max_replicas=1)
    full.arrived(request("r1", since_s=NOW))
    assert decided(full).actions == ()


def test_above_the_target_concurrency_another_replica_comes_though_slots_are_free() -> None:
    wide = worker("w1", replica("m"), slots=8)
    books = books_of(wide, worker("w2", slots=8), target_concurrency=2)
    for number in range(3):
        books.arrived(request(f"r{number}", since_s=NOW))
    decision = decided(books)
    assert sum(isinstance(action, Place) for action in decision.actions) == 3
    assert loads(decision) == [("w2", LoadReason.SCALE_OUT)]


def test_a_replica_beyond_those_that_a_model_may_have_goes_when_nothing_runs_there() -> None:
    busy, idle = worker("w1", replica("m", running=1)), worker("w2", replica("m"))
    assert decided(books_of(busy, idle, max_replicas=1)).actions == (Unload(at("w2"), UnloadReason.SCALED_IN),)
    both = books_of(busy, worker("w2", replica("m", running=1)), max_replicas=1)
    assert decided(both).actions == ()


def test_one_that_the_others_could_do_without_for_long_gets_nothing_new_and_leaves_first() -> None:
    members = worker("w1", replica("m"), slots=8), worker("w2", replica("m"), slots=8)
    books = books_of(*members)
    decided(books)
    books.arrived(request("r1", since_s=NOW + 70.0))
    assert decided(books, NOW + 70.0).actions == (Place("r1", at("w2")),)  # w1 is the first of two idle ones
    books.placed("r1", at("w2"), NOW + 70.0)
    decided(books, NOW + 70.0)
    books.arrived(request("r2", since_s=NOW + 71.0))
    assert decided(books, NOW + 71.0).actions == (Place("r2", at("w2")),)  # though w1 has nothing to do
    books.placed("r2", at("w2"), NOW + 71.0)
    decided(books, NOW + 71.0)
    books.arrived(request("r3", "n", since_s=NOW + 72.0))
    assert decided(books, NOW + 72.0).actions == (Unload(at("w1"), UnloadReason.SCALED_IN),)


def test_more_than_the_others_could_do_keeps_all_replicas() -> None:
    busy = [worker(f"w{n}", replica("m", running=1), slots=2) for n in (1, 2)]
    books = books_of(*busy)
    decided(books)
    books.arrived(request("r1", since_s=NOW + 70.0))
    assert decided(books, NOW + 70.0).actions == (Place("r1", at("w1")),)


def test_memory_is_kept_while_nobody_wants_it() -> None:
    books = books_of(worker("w1", replica("m"), memory=2 * REPLICA))
    decided(books)
    assert decided(books, NOW + 1e7) == Decision((), None)
