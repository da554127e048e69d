"""Whether one more replica of a model that has a line pays."""

import math

from mesh.facts import Member
from policy.actions import Action, Load, Unload
from policy.books import Books
from policy.decide import decide
from policy.growth import Growing, Line
from policy.knobs import Knobs
from policy.spot import Spot
from tests.policy.scene import REPLICA, at, cluster, model, replica, request, store, worker

NOW = 1000.0
KNOBS = Knobs(held_s=100.0)
FULL = replica("m", running=2)


def books_of(*members: Member) -> Books:
    """With the models m and n, both on the node n1."""
    books = Books()
    books.observe(cluster([*members, store("s1", "m@1", "n@1")], [model("m"), model("n")]))
    return books


def asked(books: Books, count: int) -> tuple[Action, ...]:
    """What is done for so many more than have a slot."""
    for number in range(count):
        books.arrived(request(f"r{number}", since_s=NOW))
    return decide(books.view(NOW), NOW, KNOBS).actions


def test_what_a_replica_spares_is_what_lies_between_two_lines() -> None:
    """Four slots take a request every 2.5 s, so twelve last 30 s. Six slots from 6 s on take the 9.6 that are left then
    within 16 s."""
    line = Line(beyond=12, have=2, slots=2, held_s=10.0)
    before, after = 0.5 * 30.0 * 12.0, 0.5 * 6.0 * (12.0 + 9.6) + 0.5 * 16.0 * 9.6
    assert math.isclose(line.saved_s(6.0, 0.0), before - after)
    assert math.isclose(Line(10, 2, 2, 10.0).saved_s(6.0, 2.0), line.saved_s(6.0, 0.0))
    assert line.saved_s(31.0, 0.0) == 0.0


def test_a_line_gets_replicas_near_the_checkpoint_and_afar_once_one_is_everywhere_near() -> None:
    far = worker("w9", node="n2")
    assert loaded(books_of(worker("w1", FULL), worker("w2"), worker("w3", replica("n", running=1)), far)) == ["w2"]
    assert loaded(books_of(worker("w1", FULL), worker("w2"), worker("w3"), far)) == ["w2", "w3", "w9"]


def loaded(books: Books) -> list[str]:
    """Where a line of nine comes to more replicas at once."""
    return [one.spot.worker_id for one in asked(books, 9) if isinstance(one, Load)]


def test_an_idle_replica_leaves_for_a_line_if_its_loss_costs_less_than_is_won() -> None:
    """A load takes 0.2 s, and so is what somebody loses who comes back to find his model gone."""
    seldom, often = (books_of(worker("w1", FULL), worker("w2", replica("n"))) for _ in range(2))
    often.demand.recall("n", NOW - 1.0, [0.0] * 10 + [100.0] * 10 + [0.0] * 20)
    short, long = Line(2, have=2, slots=2, held_s=1.0), Line(6, have=2, slots=2, held_s=1.0)
    assert leaving(seldom, short) == leaving(often, long) == [at("w2", "n")]
    assert leaving(often, short) == []


def test_where_room_is_being_made_for_a_model_it_is_not_made_twice() -> None:
    books = books_of(worker("w1", FULL), worker("w2", replica("n"), replica("n", digest="n@0"), memory=2 * REPLICA))
    assert sum(isinstance(one, Unload) for one in asked(books, 9)) == 1


def test_nothing_comes_over_the_network_while_others_wait() -> None:
    books = books_of(worker("w1", FULL), worker("w9", node="n2"))
    assert where(books, Line(9, have=1, slots=2, held_s=100.0)) == "w9"
    books.arrived(request("r1", "n", since_s=NOW))
    assert where(books, Line(9, have=1, slots=2, held_s=100.0)) == ""


def test_those_who_are_surely_expected_stand_in_the_line() -> None:
    books = books_of(worker("w1", FULL), worker("w2"))
    full = Line(0, have=1, slots=2, held_s=100.0)
    assert where(books, full) == ""
    for number in range(100):
        books.demand.arrived("m", NOW - 10.0 + 0.1 * number)
    assert where(books, full) == "w2"


def where(books: Books, line: Line) -> str:
    """The worker that one more replica of m would be on; "": none."""
    view = books.view(NOW)
    made = Growing(view, view.cluster.models["m"], line, NOW, KNOBS).best()
    return made.candidate.member.id if made else ""


def leaving(books: Books, line: Line) -> list[Spot]:
    """What would have to leave for one more replica of m."""
    view = books.view(NOW)
    made = Growing(view, view.cluster.models["m"], line, NOW, KNOBS).best()
    return [one.spot for one in made.plan.unloads] if made and made.plan else []
