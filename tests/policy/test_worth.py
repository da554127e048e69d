"""Who leaves first when memory is wanted."""

from collections.abc import Sequence

from policy.actions import Action, Unload
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from tests.policy.scene import REPLICA, cluster, model, replica, request, store, worker

KNOBS = Knobs()


def evicted(asked: dict[str, Sequence[float]], now: float) -> tuple[Action, ...]:
    """For m, which has just been asked for, on a worker full of a and b that were asked at these moments."""
    books = Books()
    home = worker("w1", replica("a"), replica("b"), memory=2 * REPLICA)
    names = ("a", "b", "m")
    books.observe(cluster([home, store("s1", *(f"{name}@1" for name in names))], map(model, names)))
    for name, moments in asked.items():
        for moment in moments:
            books.demand.arrived(name, moment)
    decide(books.view(now), now, KNOBS)
    books.arrived(request("r1", since_s=now))
    return tuple(a for a in decide(books.view(now), now, KNOBS).actions if isinstance(a, Unload))


def spots(actions: tuple[Action, ...]) -> list[str]:
    """Whose replicas go."""
    return [action.spot.model for action in actions if isinstance(action, Unload)]


def test_of_models_that_nobody_knows_the_one_asked_longest_ago_leaves() -> None:
    assert spots(evicted({"a": [100.0], "b": [300.0]}, 1000.0)) == ["a"]
    assert spots(evicted({"a": [300.0], "b": [100.0]}, 1000.0)) == ["b"]


def test_one_that_is_about_to_be_asked_stays_though_another_was_asked_later() -> None:
    regular = [600.0 * n for n in range(20)]  # the next one at 12000
    once = [11_900.0]
    assert spots(evicted({"a": regular, "b": once}, 11_990.0)) == ["b"]


def test_one_that_was_just_asked_and_comes_back_much_later_leaves() -> None:
    late, often = [9000.0 * n for n in range(8)], [62_500.0 + 100.0 * n for n in range(5)]
    assert spots(evicted({"a": late, "b": often}, 63_010.0)) == ["a"]


def test_of_workers_that_are_equally_near_the_one_whose_replica_is_least_worth_loses_it() -> None:
    for first, other in (("a", "b"), ("b", "a")):
        books = Books()
        homes = [worker("w1", replica(first), memory=REPLICA), worker("w2", replica(other), memory=REPLICA)]
        books.observe(cluster([*homes, store("s1", "a@1", "b@1", "m@1")], map(model, ("a", "b", "m"))))
        for name, moment in (("a", 10.0), ("b", 990.0)):
            books.demand.arrived(name, moment)
        decide(books.view(1000.0), 1000.0, KNOBS)
        books.arrived(request("r1", since_s=1000.0))
        assert spots(decide(books.view(1000.0), 1000.0, KNOBS).actions) == ["a"]


def test_a_model_that_the_catalogue_does_not_have_is_not_remembered() -> None:
    books = Books()
    books.observe(cluster([worker("w1")], [model("m")]))
    books.arrived(request("r1", "made-up"))
    assert not books.demand.histories
    books.arrived(request("r2"))
    assert books.demand.histories.keys() == {"m"}
    books.observe(cluster([worker("w1")], []))
    books.view(1.0)
    assert not books.demand.histories
