"""How tokens are chosen, and how likely they were: to and from the wire."""

from collections.abc import Iterable

from whimbrel.inference.v1 import inference_pb2 as pb

from mesh.requests import Guide, GuideKind, Sampling, TokenBias, TokenLogprob, TopLogprob


def guide_to(guide: Guide | None) -> pb.Guide | None:
    """To the wire."""
    match guide:
        case None:
            return None
        case Guide(GuideKind.JSON_SCHEMA, text):
            return pb.Guide(json_schema=text)
        case Guide(GuideKind.REGEX, text):
            return pb.Guide(regex=text)
        case _:
            return pb.Guide(json_object=True)


def guide_from(message: pb.SamplingParams) -> Guide | None:
    """From the wire; None where no shape is asked for."""
    guide = message.guide
    match guide.WhichOneof("kind"):
        case "json_schema":
            return Guide(GuideKind.JSON_SCHEMA, guide.json_schema)
        case "regex":
            return Guide(GuideKind.REGEX, guide.regex)
        case "json_object" if guide.json_object:
            return Guide(GuideKind.JSON_OBJECT)
        case _:
            return None


def biases_to(biases: Iterable[TokenBias]) -> dict[int, float]:
    """To the wire."""
    return {one.token_id: one.bias for one in biases}


def biases_from(message: pb.SamplingParams) -> tuple[TokenBias, ...]:
    """From the wire, by token: a map has no order of its own."""
    return tuple(TokenBias(token, message.logit_bias[token]) for token in sorted(message.logit_bias))


def top_logprobs_from(message: pb.SamplingParams) -> int | None:
    """From the wire; 0 is a wish too."""
    return message.top_logprobs if message.HasField("top_logprobs") else None


def logprob_to(likely: TokenLogprob) -> pb.TokenLogprob:
    """To the wire."""
    top = [pb.TopLogprob(token_id=one.token_id, logprob=one.logprob, text=one.text) for one in likely.top]
    return pb.TokenLogprob(logprob=likely.logprob, top=top)


def logprob_from(message: pb.TokenLogprob) -> TokenLogprob:
    """From the wire."""
    return TokenLogprob(message.logprob, tuple(TopLogprob(one.token_id, one.logprob, one.text) for one in message.top))


def sampling_to(sampling: Sampling) -> pb.SamplingParams:
    """To the wire, with every field set."""
    return pb.SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        stop_token_ids=sampling.stop_token_ids,
        logit_bias=biases_to(sampling.logit_bias),
        top_logprobs=sampling.top_logprobs,
        guide=guide_to(sampling.guide),
    )


def sampling_from(message: pb.SamplingParams) -> Sampling:
    """From the wire, where every field is set."""
    return Sampling(
        max_tokens=message.max_tokens,
        temperature=message.temperature,
        top_k=message.top_k,
        top_p=message.top_p,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        seed=message.seed,
        stop_token_ids=tuple(message.stop_token_ids),
        logit_bias=biases_from(message),
        top_logprobs=top_logprobs_from(message),
        guide=guide_from(message),
    )
