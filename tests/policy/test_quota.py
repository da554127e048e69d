"""Who is turned away of a tenant that asks for more at once than it may."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from policy.actions import Place, RefusalReason, Refuse
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from tests.policy.scene import cluster, model, replica, request, store, worker

NOW = 1000.0
KNOBS = Knobs(tenant_requests=2)
FACTS = cluster([worker("w1", replica("m"), slots=8), store("s1", "m@1")], [model("m")])


def decided(books: Books, knobs: Knobs = KNOBS) -> list[Place | Refuse]:
    """What is done for those who wait; those placed run from then on."""
    books.observe(FACTS)
    done = [one for one in decide(books.view(NOW), NOW, knobs).actions if isinstance(one, Place | Refuse)]
    for one in done:
        if isinstance(one, Place):
            books.placed(one.request_id, one.spot, NOW)
        else:
            books.left(one.request_id, NOW)
    return done


def asked(books: Books, *names: str, tenant: str = "greedy") -> None:
    """Requests that come one after the other."""
    for number, name in enumerate(names):
        books.arrived(replace(request(name, since_s=NOW + number / 10), tenant=tenant))


def refused(done: list[Place | Refuse]) -> set[str]:
    """All for that one reason, with a hint when to come again."""
    found = [one for one in done if isinstance(one, Refuse)]
    assert all(one.reason is RefusalReason.TENANT_FULL and one.retry_after_s for one in found)
    return {one.request_id for one in found}


def test_the_last_that_came_is_turned_away_though_there_is_a_slot_and_nobody_elses_is() -> None:
    books = Books()
    asked(books, "a", "b", "c")
    asked(books, "x", tenant="modest")
    assert refused(decided(books)) == {"c"}
    books.left("a", NOW)
    asked(books, "d", "e")
    assert refused(decided(books)) == {"e"}


def test_without_a_limit_nobody_is() -> None:
    books = Books()
    asked(books, *"abcdefgh")
    assert refused(decided(books, Knobs())) == set()


def test_an_answer_that_has_begun_goes_on() -> None:
    books = Books()
    asked(books, "a", "b")
    decided(books)
    books.arrived(replace(request("begun", digest="m@1"), tenant="greedy"))
    assert refused(decided(books)) == set()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=30))
def test_no_tenant_ever_has_more_than_it_may_and_none_is_refused_below_that(steps: list[tuple[str, bool]]) -> None:
    books, active = Books(), dict[str, list[str]](a=[], b=[])
    for number, (tenant, comes) in enumerate(steps):
        full = len(active[tenant]) == KNOBS.tenant_requests
        if comes:
            asked(books, name := str(number), tenant=tenant)
            assert refused(decided(books)) == ({name} if full else set())
            active[tenant] += [] if full else [name]
        elif active[tenant]:
            books.left(active[tenant].pop(), NOW)
        assert all(books.shares.requests(one) == len(active[one]) for one in active)
