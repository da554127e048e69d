"""What is drawn from a seed."""

import itertools

from chaos.questions import Sort, questions
from chaos.troubles import Deed, troubles
from mesh.facts import Kind

MODELS = ("a", "b", "c")


def test_a_seed_gives_the_same_questions_again_and_another_one_others() -> None:
    assert questions(1, 50, MODELS) == questions(1, 50, MODELS)
    assert questions(1, 50, MODELS) != questions(2, 50, MODELS)


def test_fewer_questions_are_the_first_of_more() -> None:
    assert questions(1, 300, MODELS)[:40] == questions(1, 40, MODELS)


def test_there_are_questions_of_every_sort_for_every_model() -> None:
    asked = questions(1, 300, MODELS)
    assert {(question.sort, question.model) for question in asked} == set(itertools.product(Sort, MODELS))


def test_questions_without_a_seed_are_the_same_only_by_their_id() -> None:
    asked = questions(1, 300, MODELS)
    drawn = [question for question in asked if question.sort is Sort.DRAWN]
    assert len({question.same for question in drawn}) == len(drawn)
    assert all(not question.same.request_id for question in asked if question.sort is not Sort.DRAWN)


def test_every_deed_befalls_and_every_kind_of_process_is_struck() -> None:
    drawn = list(itertools.islice(troubles(1), 400))
    assert drawn == list(itertools.islice(troubles(1), 400))
    assert {trouble.deed for trouble in drawn} == set(Deed)
    assert {trouble.kind for trouble in drawn if trouble.deed is Deed.KILL} == set(Kind)
