"""One large hole of several small ones: a model's few requests go together where others wait for memory."""

from dataclasses import replace
from typing import Any

import pytest

from policy.actions import Load, MakeWay, Move, MoveReason, Place, Unload, UnloadReason
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Running, View
from tests.policy.scene import at, cluster, model, replica, request, store, worker

NOW = 1000.0
KNOBS = Knobs(moves=True, held_s=60.0, yields=False)
MODELS = (model("m"), model("n"), model("o"))
MEMBERS = (
    worker("w1", replica("n"), slots=4),
    worker("w2", replica("n"), slots=4),
    worker("w3", replica("o"), slots=4),
    worker("w4", node="n4", memory=1),
    store("s4", "m@1", "n@1", "o@1", node="n4"),  # nothing lies near the workers that are large enough
)


def view(first: int = 1, second: int = 2, *, surplus: bool = True, **more: Any) -> View:
    """Somebody waits for m; n runs so many on w1, and on w2, and o is busy on w3."""
    counts = {at("w1", "n"): first, at("w2", "n"): second, at("w3", "o"): 4}
    runs = {
        spot: {f"{spot.worker_id}{n}": Running(f"{spot.worker_id}{n}", NOW - 1.0) for n in range(count)}
        for spot, count in counts.items()
    }
    placed = {spot: count for spot, count in counts.items() if count}
    waits = (request("r", since_s=NOW),)
    since_s = {"n": NOW - 9.0} if surplus else {}
    return View(cluster(MEMBERS, MODELS), waits, placed, runs=runs, surplus_since_s=since_s, **more)


def test_the_few_requests_of_a_replica_that_can_be_done_without_join_the_others() -> None:
    made, moved = decide(view(), NOW, KNOBS).actions
    assert isinstance(made, MakeWay)
    assert isinstance(moved, Move)
    assert (made.evacuation.spot, made.evacuation.reason) == (at("w1"), MoveReason.DEFRAGMENT)
    assert (moved.request_id, moved.to, moved.reason) == ("w10", at("w2", "n"), MoveReason.DEFRAGMENT)


@pytest.mark.parametrize(
    ("shown", "knobs"),
    [
        (view(surplus=False), KNOBS),  # its replicas have enough to do
        (view(2, 3), KNOBS),  # the others have no slots for all of them
        (view(), replace(KNOBS, held_s=0.1)),  # somebody is done before
        (view(), replace(KNOBS, copying_s=90.0, computing_s=90.0)),  # it costs more than it wins
        (view(), replace(KNOBS, moves=False)),
    ],
)
def test_nobody_moves_where_that_does_not_help(shown: View, knobs: Knobs) -> None:
    assert decide(shown, NOW, knobs).actions == ()


def test_from_two_half_empty_replicas_to_a_third_model() -> None:
    """Every step by the books: the requests move, what they leave is evicted, and the model that waits is loaded."""
    books = Books()
    books.observe(cluster(MEMBERS, MODELS))
    for number, spot in enumerate([at("w1", "n"), at("w2", "n"), *[at("w3", "o")] * 4]):
        books.arrived(request(f"old{number}", spot.model))
        books.placed(f"old{number}", spot, NOW)
    books.arrived(request("r", since_s=NOW))
    made, moved = decide(books.view(NOW), NOW, KNOBS).actions
    assert isinstance(made, MakeWay)
    assert isinstance(moved, Move)
    books.moving.add(made.evacuation)
    books.moves(moved.request_id, moved.to, NOW)
    books.arrived(request("new", "n", since_s=NOW))
    (placed,) = decide(books.view(NOW), NOW, KNOBS).actions
    assert placed == Place("new", moved.to)  # not where somebody is about to leave
    books.moved(moved.request_id, moved.to, NOW)
    books.left("new", NOW)
    left = made.evacuation.legs[0].source
    emptied = decide(books.view(NOW), NOW, KNOBS)
    assert emptied.actions == (Unload(left, UnloadReason.SCALED_IN),)
    books.claimed(emptied.claims)
    gone = [
        replace(one, worker=replace(one.worker, replicas=())) if one.id == left.worker_id and one.worker else one
        for one in MEMBERS
    ]
    books.unload_began(left)
    books.observe(cluster(gone, MODELS))
    books.unload_ended(left)
    loads = [one for one in decide(books.view(NOW), NOW, KNOBS).actions if isinstance(one, Load)]
    assert [one.spot for one in loads] == [at(left.worker_id)]
