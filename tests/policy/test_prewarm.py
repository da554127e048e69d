"""Models that are loaded before anybody asks."""

from policy.actions import Load, LoadReason, Unload, UnloadReason
from policy.books import Books
from policy.decide import Decision, decide
from policy.knobs import Knobs
from tests.policy.scene import at, cluster, model, replica, store, worker

MINUTES_10 = 600.0
LAST = 19 * MINUTES_10
SLOW = Knobs(init_s=30.0)  # a load takes long enough to matter
STORE = store("s1", "m@1", "n@1")


def regular(*members: str, here: bool = False, gaps: float = MINUTES_10) -> Books:
    """m is asked every ten minutes, and n was asked once, long ago. w1 has room for one, and n, if it is `here`."""
    books = Books()
    home = worker("w1", *([replica("n")] if here else []))
    books.observe(cluster([home, STORE], [model("m"), model("n")]))
    books.demand.arrived("n", 0.0)
    for n in range(20):
        books.demand.arrived("m", n * gaps)
    return books


def decided(books: Books, now: float) -> Decision:
    return decide(books.view(now), now, SLOW)


def opened(books: Books) -> float:
    """The moment at which the policy wants to look at m."""
    at_s = decided(books, LAST + 1.0).look_again_s
    assert at_s is not None
    return at_s


def test_a_model_that_comes_every_ten_minutes_is_loaded_a_little_before() -> None:
    books = regular()
    at_s = opened(books)
    assert LAST + 400.0 < at_s < LAST + MINUTES_10
    assert decided(books, at_s).actions == (Load(at("w1"), "s1", reason=LoadReason.PREWARM),)


def test_nothing_is_loaded_for_one_whose_pauses_tell_nothing() -> None:
    books = Books()
    books.observe(cluster([worker("w1"), STORE], [model("m"), model("n")]))
    for moment in (0.0, 3.0, 2000.0):
        books.demand.arrived("m", moment)
    assert decided(books, 2001.0) == Decision((), None)


def test_what_is_worth_less_makes_room_for_it_and_then_it_is_loaded() -> None:
    books = regular(here=True)
    at_s = opened(books)
    first = decided(books, at_s)
    assert first.actions == (Unload(at("w1", "n"), UnloadReason.EVICTED),)
    books.claimed(first.claims)
    books.unload_began(at("w1", "n"))
    assert decided(books, at_s + 0.1).actions == ()
    books.observe(cluster([worker("w1"), STORE], [model("m"), model("n")]))
    books.unload_ended(at("w1", "n"))
    assert [a.reason for a in decided(books, at_s + 0.2).actions if isinstance(a, Load)] == [LoadReason.PREWARM]


def test_what_is_as_likely_to_be_asked_is_not_given_up() -> None:
    books = regular(here=True)
    for n in range(20):
        books.demand.arrived("n", n * MINUTES_10)
    assert decided(books, opened(books)).actions == ()


def test_a_load_under_way_on_the_node_is_not_made_slower() -> None:
    books = regular()
    home = worker("w1", memory=30)
    books.observe(cluster([home, STORE], [model("m"), model("n")]))
    at_s = opened(books)
    books.load_began(Load(at("w1", "n"), "s1"), at_s)
    assert decided(books, at_s).actions == ()


def test_a_window_in_which_nobody_came_closes_and_nothing_more_is_looked_at() -> None:
    books = regular()
    books.observe(cluster([STORE], [model("m"), model("n")]))
    now: float | None = opened(books)
    looks = 0
    while now is not None:
        now = decided(books, now).look_again_s
        looks += 1
        assert looks < 10
    assert not books.demand.closes_s


def test_nobody_looks_for_the_sake_of_a_model_that_is_there_until_it_has_gone() -> None:
    books = regular()
    books.observe(cluster([worker("w1", replica("m")), STORE], [model("m"), model("n")]))
    assert decided(books, LAST + 1.0).look_again_s is None
    at_s = opened(regular())
    books.observe(cluster([worker("w1"), STORE], [model("m"), model("n")]))
    assert decided(books, LAST + 2.0) == Decision((), at_s)


def test_what_room_was_made_for_is_loaded_though_nobody_looked_in_between() -> None:
    books = regular(here=True)
    at_s = opened(books)
    books.claimed(decided(books, at_s).claims)
    books.unload_began(at("w1", "n"))
    books.observe(cluster([worker("w1"), STORE], [model("m"), model("n")]))
    books.unload_ended(at("w1", "n"))
    assert [a.reason for a in decided(books, at_s + 0.2).actions if isinstance(a, Load)] == [LoadReason.PREWARM]
