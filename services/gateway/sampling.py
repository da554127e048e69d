"""From the wire's sampling, all optional, to one where everything is set; every wrong field is named at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from whimbrel.inference.v1 import inference_pb2 as pb

from mesh.clients.sampling_wire import biases_from, guide_from, top_logprobs_from
from mesh.errors import InvalidRequest, Violation
from mesh.requests import Sampling
from services.gateway.texts import Text

MOST_STOPS, MOST_BIASES = 16, 1024
ALSO_GREEDY = frozenset({"repetition_penalty"})  # as in transformers: it is no matter of sampling


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a number must lie."""

    field: str
    low: float
    high: float
    open_low: bool = False  # low itself is not allowed

    def violated(self, value: float) -> bool:
        """Also for NaN, which compares false with everything."""
        return not (self.low <= value <= self.high) or (self.open_low and value == self.low)

    @property
    def sentence(self) -> str:
        """For the error."""
        return f"must lie in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"


BOUNDS = (
    Bound("max_tokens", 1, 1 << 20),
    Bound("temperature", 0, 2),
    Bound("top_k", 0, 1 << 20),
    Bound("top_p", 0, 1, open_low=True),
    Bound("min_p", 0, 1),
    Bound("repetition_penalty", 0, 10, open_low=True),
    Bound("presence_penalty", -2, 2),
    Bound("frequency_penalty", -2, 2),
    Bound("top_logprobs", 0, 20),
)
BIAS = Bound("logit_bias", -100, 100)


def resolve(asked: pb.SamplingParams, text: Text, room: int, default_max_tokens: int, request_id: str) -> Sampling:
    """The sampling of one request. `room` is what the prompt leaves of the model's context, in tokens. A seed that is
    not asked for comes from the request's id: whoever draws anew, at whichever gateway, draws the same."""
    _check(asked, text)
    sampled = bool(text.generation.get("do_sample", False))

    def value(field: str, otherwise: float) -> Any:
        if asked.HasField(field):  # type: ignore[arg-type]
            return getattr(asked, field)
        own = text.generation.get(field) if sampled or field in ALSO_GREEDY else None
        return otherwise if own is None else own

    ends = () if asked.ignore_eos else text.eos_ids
    return Sampling(
        max_tokens=min(asked.max_tokens or default_max_tokens, room),
        temperature=float(value("temperature", 1.0 if sampled else 0.0)),
        top_k=int(value("top_k", 0)),
        top_p=float(value("top_p", 1.0)),
        min_p=float(value("min_p", 0.0)),
        repetition_penalty=float(value("repetition_penalty", 1.0)),
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        seed=asked.seed if asked.HasField("seed") else _seed(request_id),
        stop_token_ids=tuple(dict.fromkeys((*ends, *asked.stop_token_ids))),
        logit_bias=biases_from(asked),
        top_logprobs=top_logprobs_from(asked),
        guide=guide_from(asked),
    )


def _seed(request_id: str) -> int:
    return int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest()) >> 1


def _check(asked: pb.SamplingParams, text: Text) -> None:
    wrong = [
        Violation(f"sampling.{bound.field}", bound.sentence)
        for bound in BOUNDS
        if asked.HasField(bound.field) and bound.violated(getattr(asked, bound.field))  # type: ignore[arg-type]
    ]
    wrong += [Violation(f"sampling.{field}", why) for field, why in (*_of_stops(asked), *_of_biases(asked, text))]
    if wrong:
        message = "; ".join(f"{violation.field} {violation.description}" for violation in wrong)
        raise InvalidRequest(message, reason="BAD_SAMPLING", violations=tuple(wrong))


def _of_stops(asked: pb.SamplingParams) -> Iterator[tuple[str, str]]:
    if len(asked.stop) > MOST_STOPS:
        yield "stop", f"must be at most {MOST_STOPS} texts"
    if any(not stop for stop in asked.stop):
        yield "stop", "must not have an empty text"


def _of_biases(asked: pb.SamplingParams, text: Text) -> Iterator[tuple[str, str]]:
    if len(asked.logit_bias) > MOST_BIASES:
        yield "logit_bias", f"must be at most {MOST_BIASES} tokens"
    if any(BIAS.violated(bias) for bias in asked.logit_bias.values()):
        yield "logit_bias", BIAS.sentence
    if text.vocabulary and max(asked.logit_bias, default=0) >= text.vocabulary:
        yield "logit_bias", f"must name tokens below the vocabulary's {text.vocabulary}"
