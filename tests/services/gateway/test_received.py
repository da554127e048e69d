"""What clients that come back say they have: read, and refused where it cannot be."""

from collections.abc import Mapping

import pytest
from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.errors import InvalidRequest
from services.gateway.received import check_received, received_from
from services.gateway.strand import Prepared
from tests.services.gateway.test_answer import EOS, SAMPLING, prepared

DIGEST = "ab" * 32


def coming(
    received: Mapping[int, tuple[int, ...]], *, request_id: str = "r", checkpoint: str = DIGEST
) -> pb.ChatRequest:
    """A request that goes on."""
    told = [pb.Received(index=index, token_ids=tokens) for index, tokens in received.items()]
    return pb.ChatRequest(received=told, request_id=request_id, checkpoint=checkpoint)


def fields_refused(request: pb.ChatRequest, answers: int = 2) -> list[str]:
    """The fields that an InvalidRequest names."""
    with pytest.raises(InvalidRequest) as caught:
        received_from(request, answers)
    assert caught.value.reason == "BAD_RECEIVED"
    return [violation.field for violation in caught.value.violations]


def why_refused(*received: tuple[int, ...]) -> str:
    """What is said of tokens that cannot be an answer's."""
    with pytest.raises(InvalidRequest) as caught:
        check_received(received, prepared())
    assert caught.value.reason == "BAD_RECEIVED"
    return caught.value.message


def test_each_answers_tokens_are_found_whatever_their_order() -> None:
    assert received_from(coming({2: (7, 8), 0: (5,)}), 3) == ((5,), (), (7, 8))


@pytest.mark.parametrize("request_", [pb.GenerateRequest(), coming({}), coming({0: (), 1: ()}, checkpoint="")])
def test_a_client_that_has_nothing_asks_anew(request_: pb.GenerateRequest | pb.ChatRequest) -> None:
    assert received_from(request_, 2) == ()


def test_answers_that_were_not_asked_for_are_refused() -> None:
    assert fields_refused(coming({2: (7,)})) == ["received"]


def test_an_answer_that_is_named_twice_is_refused() -> None:
    request = coming({1: (7,)})
    request.received.add(index=1, token_ids=[7, 8])
    assert fields_refused(request) == ["received"]


def test_only_the_same_request_goes_on_and_only_by_the_version_that_began_it() -> None:
    assert fields_refused(coming({0: (7,)}, request_id="", checkpoint="")) == ["request_id", "checkpoint"]
    assert fields_refused(coming({0: (7,)}, checkpoint="../../etc")) == ["checkpoint"]


def test_what_an_answer_can_begin_with_is_taken() -> None:
    one: Prepared = prepared()
    check_received(((), (1,) * SAMPLING.max_tokens, (5, EOS)), one)
    assert "must have tokens below the vocabulary's 320" in why_refused((1, 320))


def test_tokens_beyond_the_answers_end_are_refused() -> None:
    assert "has 65 tokens of an answer of at most 64" in why_refused((1,), (1,) * 65)
    assert "goes on after a token that ends an answer" in why_refused((5, EOS, 6))
