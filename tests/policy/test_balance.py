"""Evening out replicas of one model: who goes over, and when nobody does."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.facts import Member
from mesh.requests import MoveKind
from policy.actions import Action, Move, MoveReason
from policy.balance import Device, Passage
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.moving import Evacuation, Leg, Moving
from policy.view import Running, View
from tests.policy.scene import REPLICA, at, cluster, model, replica, request, store, worker

NOW = 1000.0
KNOBS = Knobs(moves=True, held_s=20.0, crowding=0.2)
MODELS = (model("m"), model("n"))
STORE = store("s1", "m@1", "n@1")
HOT, COOL = at("w1"), at("w2")


def runs(count: int, since_s: float = NOW - 1.0, prefix: str = "r", **more: Any) -> dict[str, Running]:
    """So many requests."""
    return {f"{prefix}{n}": Running(f"{prefix}{n}", since_s, 10, **more) for n in range(count)}


def full(worker_id: str, *others: str, slots: int = 4) -> Member:
    """A worker with a replica of m, and of others."""
    held = [replica(name) for name in ("m", *others)]
    return worker(worker_id, *held, slots=slots, memory=len(held) * REPLICA)


def view(hot: int, cool: int = 0, *, beside: int = 0, slots: int = 4, **more: Any) -> View:
    """So many run on w1, and on w2, and of another model on w2."""
    there = {
        HOT: runs(hot, **more.pop("run", {})),
        COOL: runs(cool, prefix="c"),
        at("w2", "n"): runs(beside, prefix="n"),
    }
    there = {spot: each for spot, each in there.items() if each}
    more.setdefault("uneven", frozenset({"m"}))
    facts = cluster([STORE, full("w1", slots=slots), full("w2", "n", slots=slots)], MODELS)
    return View(facts, runs=there, placed={spot: len(each) for spot, each in there.items()}, **more)


def moves(shown: View, knobs: Knobs = KNOBS) -> list[Action]:
    """That are decided."""
    return [one for one in decide(shown, NOW, knobs).actions if isinstance(one, Move)]


def test_one_request_goes_from_the_fullest_replica_to_the_emptiest() -> None:
    assert moves(view(4)) == [Move("r3", COOL, MoveKind.KV, MoveReason.BALANCE)]


@pytest.mark.parametrize(("hot", "cool", "goes"), [(4, 2, True), (4, 3, False), (3, 2, False), (2, 0, True)])
def test_nobody_goes_where_it_would_only_be_turned_round(hot: int, cool: int, goes: bool) -> None:
    assert bool(moves(view(hot, cool))) is goes


def test_large_replicas_differ_by_half_their_slots_at_least() -> None:
    assert not moves(view(9, 2, slots=16))
    assert moves(view(10, 2, slots=16))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"copying_s": 9.0, "computing_s": 99.0, "copy_gap_s": 19.0}, "it costs more than it wins"),
        ({"crowding": 0.0}, "nobody is slower for the others"),
        ({"move_wins_s": 60.0}, "the win is too small"),
        ({"held_s": 0.5}, "they have ended before"),
        ({"moves": False}, "nobody would carry it out"),
    ],
)
def test_nobody_goes_where_it_does_not_pay(change: dict[str, Any], why: str) -> None:
    assert not moves(view(4), replace(KNOBS, **change)), why


def test_nobody_goes_to_a_device_that_others_use() -> None:
    """It has no requests of this model, and many of another."""
    assert not moves(view(3, 0, beside=4))


def test_a_request_that_was_moved_a_moment_ago_stays() -> None:
    rested = view(4, run={"moved_s": NOW - KNOBS.move_rest_s})
    assert moves(rested)
    assert not moves(replace(rested, runs={HOT: runs(4, moved_s=NOW - 1.0)}))


@pytest.mark.parametrize("way", [(HOT, at("w9")), (at("w9"), COOL), (COOL, at("w9"))])
def test_each_worker_sends_or_gets_one_at_a_time(way: tuple[Any, Any]) -> None:
    assert not moves(view(4, moving=Moving((), {"x": way[1]}, {"x": way[0]})))


def test_nobody_goes_to_a_replica_that_is_to_be_done_without_or_makes_way() -> None:
    assert not moves(view(4, surplus_since_s={"m": NOW - KNOBS.scale_in_s}))
    assert moves(view(4, surplus_since_s={"m": NOW - 1.0}))
    plan = Evacuation(at("w2", "x"), (Leg(COOL, at("w3")),), 1.0, NOW + 10.0)
    assert not moves(view(4, moving=Moving((plan,))))


def test_what_all_win_together_is_what_each_wins() -> None:
    """Three on the source, none on the target: the one that goes is alone, the two that stay are one fewer."""
    knobs = replace(KNOBS, copying_s=0.0, copy_gap_s=0.0, kv_bytes_per_s=1e18)
    shown = view(3)
    seats = {seat.spot: seat for seat in shown.seats("m")}
    passage = Passage(seats[HOT], seats[COOL], Device(3, 30.0), Device(0, 0.0))
    won_s = passage.wins_s(shown, shown.runs[HOT]["r0"], NOW, knobs)
    assert won_s == pytest.approx(19.0 * (1 - 1 / 1.4) + 20.0 * (1 - 1.2 / 1.4), rel=1e-6)


def test_the_books_note_which_models_are_uneven() -> None:
    books = Books()
    books.observe(cluster([STORE, full("w1"), full("w2")], MODELS))
    for n in range(3):
        books.arrived(request(f"r{n}"))
        books.placed(f"r{n}", HOT, NOW)
    assert books.view(NOW).uneven == {"m"}
    books.left("r0", NOW)
    books.left("r1", NOW)
    assert books.view(NOW).uneven == set()


def test_moves_follow_one_another_until_it_is_even() -> None:
    books = Books()
    books.observe(cluster([STORE, full("w1", slots=8), full("w2", slots=8)], MODELS))
    for n in range(8):
        books.arrived(request(f"r{n}"))
        books.placed(f"r{n}", HOT, NOW)
    moved = 0
    while going := [one for one in decide(books.view(NOW), NOW, KNOBS).actions if isinstance(one, Move)]:
        (one,) = going
        books.moves(one.request_id, one.to, NOW)
        assert not [one for one in decide(books.view(NOW), NOW, KNOBS).actions if isinstance(one, Move)]
        books.moved(one.request_id, one.to, NOW)
        moved += 1
    assert moved == 3
    assert {spot: len(each) for spot, each in books.runs.items()} == {HOT: 5, COOL: 3}
