"""What clients that come back have of their answers, off the wire and checked."""

from collections.abc import Iterator, Sequence

from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.checkpoint.validate import is_digest
from mesh.errors import InvalidRequest, Violation
from mesh.requests import Sampling
from services.gateway.strand import Prepared

Received = tuple[tuple[int, ...], ...]


def received_from(request: pb.GenerateRequest | pb.ChatRequest, answers: int) -> Received:
    """The tokens of each answer, in order; () for a request that is new. Raises InvalidRequest."""
    if not any(one.token_ids for one in request.received):
        return ()
    _refuse(list(_wrong(request, answers)))
    tokens = {one.index: tuple(one.token_ids) for one in request.received}
    return tuple(tokens.get(index, ()) for index in range(answers))


def check_received(received: Received, prepared: Prepared) -> None:
    """Raises InvalidRequest when these cannot be the beginnings of the answers to it."""
    sampling, vocabulary = prepared.question.sampling, prepared.text.vocabulary
    _refuse([Violation("received", why) for tokens in received for why in _unlike(tokens, sampling, vocabulary)])


def _wrong(request: pb.GenerateRequest | pb.ChatRequest, answers: int) -> Iterator[Violation]:
    indexes = [one.index for one in request.received]
    if max(indexes) >= answers:
        yield Violation("received", f"must name answers below {answers}, as many as are asked for")
    if len(set(indexes)) < len(indexes):
        yield Violation("received", "must name each answer once")
    if not request.request_id:
        yield Violation("request_id", "must be the one that Started told")
    if not is_digest(request.checkpoint):
        yield Violation("checkpoint", "must be the one that Started told")


def _unlike(tokens: Sequence[int], sampling: Sampling, vocabulary: int) -> Iterator[str]:
    if len(tokens) > sampling.max_tokens:
        yield f"has {len(tokens)} tokens of an answer of at most {sampling.max_tokens}"
    if vocabulary and max(tokens, default=0) >= vocabulary:
        yield f"must have tokens below the vocabulary's {vocabulary}"
    if not set(sampling.stop_token_ids).isdisjoint(tokens[:-1]):
        yield "goes on after a token that ends an answer"


def _refuse(wrong: Sequence[Violation]) -> None:
    if wrong:
        message = "; ".join(f"{one.field} {one.description}" for one in wrong)
        raise InvalidRequest(message, reason="BAD_RECEIVED", violations=tuple(wrong))
