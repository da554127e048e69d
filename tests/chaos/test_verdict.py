"""What the checker says of answers that are whole, and of each way in which one can be not."""

from dataclasses import replace

import pytest
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2

from chaos.heard import Heard
from chaos.questions import Question, Sort
from chaos.verdict import Found, judge
from mesh.clients.gateway_records import MODELS_CHOICE

QUESTION = Question("r1", Sort.SEEDED, "llama", "The tide is", MODELS_CHOICE)
RIGHT = tuple(range(100, 140))


def heard(*deltas: tuple[int, tuple[int, ...]], question: Question = QUESTION, finished: bool = True) -> Heard:
    """What came: each delta's seq and tokens, whose text is their numbers."""
    made = Heard(question)
    for seq, tokens in deltas:
        text = "".join(f"{token} " for token in tokens)
        made.hear(pb.GenerateResponse(delta=pb.Delta(seq=seq, token_ids=tokens, text=text)))
    if finished:
        end = pb.AnswerEnd(finish_reason=inference_pb2.FINISH_REASON_LENGTH)
        made.hear(pb.GenerateResponse(finished=pb.Finished(answers=[end])))
    return made


WANTED = heard((0, RIGHT))


def test_an_answer_in_two_pieces_is_whole() -> None:
    assert judge(heard((0, RIGHT[:7]), (7, RIGHT[7:])), WANTED).found is Found.WHOLE


@pytest.mark.parametrize(
    ("got", "found"),
    [
        (RIGHT[:20], Found.LOST),  # its end
        (RIGHT[:10] + RIGHT[13:], Found.LOST),  # its middle
        (RIGHT[5:], Found.LOST),  # its beginning
        (RIGHT[:10] + RIGHT[7:], Found.DUPLICATED),
        (RIGHT[:10] * 2 + RIGHT[10:30], Found.DUPLICATED),  # as long as it should be
        ((*RIGHT[:10], 7, *RIGHT[11:]), Found.WRONG),
        ((*RIGHT, 7), Found.WRONG),
        (RIGHT[:10] + tuple(range(500, 530)), Found.WRONG),
    ],
)
def test_what_is_amiss_has_its_name(got: tuple[int, ...], found: Found) -> None:
    assert judge(heard((0, got)), WANTED).found is found


def test_a_client_that_left_has_the_beginning() -> None:
    leaving = replace(QUESTION, leaves_after=5)
    left = heard((0, RIGHT[:5]), question=leaving, finished=False)
    assert left.left
    assert judge(left, WANTED).found is Found.LEFT
    wrong = heard((0, (1, 2, 3, 4, 5)), question=leaving, finished=False)
    assert judge(wrong, WANTED).found is Found.WRONG


def test_an_answer_that_its_client_gave_up_is_lost() -> None:
    broken = heard((0, RIGHT[:20]), finished=False)
    broken.failure = "WORKER_LOST: worker-1"
    verdict = judge(broken, WANTED)
    assert (verdict.found, verdict.why) == (Found.LOST, "WORKER_LOST: worker-1")


def test_a_delta_out_of_turn_is_wrong_even_where_the_tokens_agree() -> None:
    verdict = judge(heard((0, RIGHT[:7]), (9, RIGHT[7:])), WANTED)
    assert (verdict.found, verdict.why) == (Found.WRONG, "answer 0: 9 after 7 tokens")


@pytest.mark.parametrize("changed", ["text", "reason", "stop_text", "likeliest"])
def test_text_end_and_likelihoods_count_too(changed: str) -> None:
    other = heard((0, RIGHT))
    setattr(other.answers[0], changed, {"text": "101", "reason": 1, "stop_text": "x", "likeliest": [(1,)]}[changed])
    assert judge(other, WANTED).found is Found.WRONG


def test_the_worst_of_several_answers_counts() -> None:
    several = replace(QUESTION, answers=2)
    got, wanted = Heard(several), Heard(several)
    for one in (got, wanted):
        for index in range(2):
            one.hear(pb.GenerateResponse(delta=pb.Delta(index=index, token_ids=RIGHT)))
        one.hear(pb.GenerateResponse(finished=pb.Finished(answers=[pb.AnswerEnd(), pb.AnswerEnd()])))
    assert judge(got, wanted).found is Found.WHOLE
    got.answers[1].tokens[3:] = [7]
    assert judge(got, wanted).found is Found.WRONG
