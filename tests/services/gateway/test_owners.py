"""An answer's owners: a handover counts when the new owner speaks, with the gap that a client noticed."""

from mesh.requests import MoveKind
from services.gateway.owners import Handover, Owners

LOST = Handover("worker lost", MoveKind.REBUILT, exact=False)
MOVED = Handover("drain", MoveKind.KV, exact=True)


def test_a_handover_is_told_once_its_owner_has_spoken() -> None:
    owners = Owners(2)
    owners.granted("w1", None)
    owners.spoke(0)
    owners.granted("w2", MOVED)
    assert owners.moves == []
    owners.spoke(5)
    owners.spoke(6)
    (move,) = owners.moves
    assert (move.index, move.from_worker_id, move.to_worker_id, move.tokens) == (2, "w1", "w2", 5)
    assert (move.reason, move.kind, move.exact) == ("drain", MoveKind.KV, True)
    assert move.gap_s >= 0


def test_one_that_gives_it_back_without_a_word_has_not_had_it() -> None:
    owners = Owners()
    owners.granted("w1", None)
    owners.spoke(0)
    owners.granted("w2", MOVED)
    owners.granted("w1", None)
    owners.spoke(1)
    assert owners.moves == []


def test_one_that_is_lost_without_a_word_is_passed_over() -> None:
    owners = Owners()
    owners.granted("w1", None)
    owners.spoke(0)
    owners.granted("w2", MOVED)
    owners.granted("w3", LOST)
    owners.spoke(1)
    (move,) = owners.moves
    assert (move.from_worker_id, move.to_worker_id, move.kind) == ("w1", "w3", MoveKind.REBUILT)


def test_a_worker_that_is_replaced_before_the_first_token_had_no_answer_to_hand_over() -> None:
    owners = Owners()
    owners.granted("w1", None)
    owners.granted("w2", LOST)
    owners.spoke(0)
    assert owners.moves == []


def test_another_life_of_a_worker_is_another_owner() -> None:
    owners = Owners()
    owners.granted("w1", None)
    owners.spoke(0)
    owners.granted("w1", LOST)
    owners.spoke(3)
    assert [(move.from_worker_id, move.to_worker_id) for move in owners.moves] == [("w1", "w1")]
