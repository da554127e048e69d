"""A grant as the engine's request."""

from mesh.requests import Grant, Sampling
from services.worker.engine.guide import Grammar
from services.worker.engine.request import EngineRequest
from services.worker.engine.sample import SamplingParams
from services.worker.naming import replica_name


def engine_request(grant: Grant, engine_id: str, grammar: Grammar | None = None) -> EngineRequest:
    """Under the engine's name for this ownership; its guide has been compiled."""
    return EngineRequest(
        request_id=engine_id,
        replica=replica_name(grant.model, grant.digest),
        prompt_ids=grant.prompt,
        params=_params(grant.sampling),
        generated=grant.log,
        grammar=grammar,
    )


def _params(sampling: Sampling) -> SamplingParams:
    return SamplingParams(
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
        ignore_eos=True,  # the gateway has put the model's own ends among the ids
        logit_bias=sampling.logit_bias,
        top_logprobs=sampling.top_logprobs,
    )
