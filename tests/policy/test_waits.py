"""Places: how long they are held, what that says to those who wait, and when to come again."""

from dataclasses import replace

import pytest

from mesh.facts import Member, ReplicaState
from policy.books import Books
from policy.estimate import Source, haul
from policy.knobs import Knobs
from policy.rates import Quantity, Rate
from policy.retry import retry_after_s
from policy.view import View
from policy.waits import slot_wait
from tests.policy.scene import at, cluster, model, replica, request, store, worker

KNOBS = Knobs(held_s=10.0)
STORE = store("s1", "m@1", "n@1")
FULL = worker("w1", replica("m", running=2), slots=2)


def held(books: Books, number: str, seconds: float, name: str = "m") -> None:
    """A request comes, has a place for so long, and goes."""
    books.arrived(request(number, name))
    books.placed(number, at("w1", name), 100.0)
    books.left(number, 100.0 + seconds)


def books_of(*members: Member) -> Books:
    """That know of these."""
    books = Books()
    books.observe(cluster([*members, STORE], [model("m"), model("n")]))
    return books


def test_what_places_were_held_for_is_what_the_next_in_line_waits_for() -> None:
    books = books_of(FULL)
    for n in range(20):
        held(books, str(n), 3.0)
    wait = slot_wait(books.rates, "m", ahead=3, slots=2, knobs=KNOBS)
    assert books.rates.seconds(wait) == pytest.approx(2 * 3.0, rel=0.05)


def test_a_model_that_has_never_answered_is_thought_to_be_as_others_are() -> None:
    books = books_of(FULL)
    for n in range(20):
        held(books, str(n), 3.0)
    wait = slot_wait(books.rates, "n", ahead=0, slots=1, knobs=KNOBS)
    assert books.rates.seconds(wait) == pytest.approx(3.0, rel=0.05)


def test_a_request_that_leaves_without_a_place_teaches_nothing() -> None:
    books = books_of(FULL)
    books.arrived(request("r"))
    books.left("r", 100.0)
    assert not books.rates.learnt


def test_what_a_replica_says_of_prompts_is_learnt_as_answers_end() -> None:
    books = books_of(worker("w1", replace(replica("m"), prefill_token_s=0.004)))
    held(books, "r", 1.0)
    assert books.rates.mean_s(Rate(Quantity.PREFILL, "n1", "m@1"), 1.0) == pytest.approx(0.004, rel=0.05)


def test_who_is_refused_comes_again_when_those_before_have_had_their_turns() -> None:
    few = View(cluster([FULL, STORE], [model("m")]), tuple(request(str(n)) for n in range(2)))
    many = View(cluster([FULL, STORE], [model("m")]), tuple(request(str(n)) for n in range(20)))
    assert retry_after_s(many, "m", 0.0, KNOBS) == pytest.approx(7 * retry_after_s(few, "m", 0.0, KNOBS))


def test_or_when_a_load_under_way_is_done() -> None:
    loading = worker("w1", replica("m", state=ReplicaState.LOADING))
    view = View(cluster([loading, STORE], [model("m")]), (request("r"),), loading=frozenset([at("w1")]))
    view.loads.begin(at("w1"), haul(model("m").checkpoint, Source(STORE, 0, 10), loading), 0.0, view.rates, KNOBS)
    rest = view.loads.rest(at("w1"), 0.1, view.rates, KNOBS)
    assert rest
    assert retry_after_s(view, "m", 0.1, KNOBS) == rest.p90_s < 2.0
