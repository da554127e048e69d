"""How likely tokens were: the model's own word, whatever was done to its logits afterwards, the same in any company."""

from typing import Any

import pytest
import torch

from mesh.requests import TokenBias, TokenLogprob
from services.worker.engine.logprobs import logprob
from services.worker.engine.request import EngineRequest
from tests.services.worker.engine.guided import SCHEMA, grammar
from tests.services.worker.engine.tiny import greedy, prompt, reference, replica, request, run, tokens_of

STEERED: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "seed": 4},
    {"temperature": 1.0, "seed": 4, "top_k": 2, "repetition_penalty": 1.5, "presence_penalty": 1.0},
    {"temperature": 0.5, "seed": 4, "min_p": 0.5, "logit_bias": (TokenBias(7, 100.0),)},
]


def told(*requests: EngineRequest, **made: Any) -> dict[str, tuple[TokenLogprob, ...]]:
    """What each request heard of its tokens' likelihood."""
    heard: dict[str, tuple[TokenLogprob, ...]] = {}
    for step in run(replica(**made), requests):
        heard[step.request_id] = heard.get(step.request_id, ()) + step.logprobs
    return heard


@pytest.mark.parametrize("params", STEERED)
def test_they_are_those_of_transformers_logits_whatever_steers_the_choice(params: dict[str, Any]) -> None:
    one = request("r", prompt(9), 12, top_logprobs=3, **params)
    produced = run(replica(), [one])
    answer = tokens_of(produced)["r"]
    with torch.inference_mode():
        logits = reference("llama")(torch.tensor([[*prompt(9), *answer]])).logits[0, 8:-1].log_softmax(-1)
    for step, row, token in zip(produced, logits, answer, strict=True):
        (likely,) = step.logprobs
        assert likely.logprob == pytest.approx(float(row[token]), abs=1e-4)
        best = row.topk(3)
        assert [top.token_id for top in likely.top] == best.indices.tolist()
        assert [top.logprob for top in likely.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_greedy_token_is_the_first_of_the_likeliest() -> None:
    (heard,) = told(request("r", prompt(9), 6, top_logprobs=1)).values()
    assert [likely.top[0].token_id for likely in heard] == list(greedy("llama", prompt(9), 6))
    assert all(likely.logprob == likely.top[0].logprob for likely in heard)


def test_only_who_asks_is_told_and_none_of_the_others_may_be_asked_for() -> None:
    heard = told(request("asks", prompt(9), 3, top_logprobs=0), request("does not", prompt(9), 3))
    assert [likely.top for likely in heard["asks"]] == [(), (), ()]
    assert heard["does not"] == ()


def test_a_guide_does_not_change_what_the_model_thinks() -> None:
    free = request("r", prompt(9), 1, top_logprobs=5)
    guided = EngineRequest("r", "llama", prompt(9), free.params, grammar=grammar(SCHEMA))
    assert told(free)["r"][0].top == told(guided)["r"][0].top
    assert told(guided)["r"][0].logprob < told(free)["r"][0].logprob


@pytest.mark.parametrize("vocabulary", [40, 3000, 70_000])
def test_bits_do_not_tell_how_many_rows_there_were(vocabulary: int) -> None:
    logits = torch.randn(8, vocabulary, generator=torch.Generator().manual_seed(1))
    assert [logprob(row, 7, 4) for row in logits] == [logprob(row.clone(), 7, 4) for row in logits]


def test_more_of_the_likeliest_than_there_are_tokens_are_all_of_them() -> None:
    likely = logprob(torch.tensor([1.0, 3.0, 2.0]), 0, 20)
    assert [top.token_id for top in likely.top] == [1, 2, 0]
    assert sum(torch.tensor([top.logprob for top in likely.top]).exp()) == pytest.approx(1.0)


def test_they_are_as_long_as_the_answer_even_when_it_is_rebuilt() -> None:
    answer = greedy("llama", prompt(17), 10)
    heard = told(request("moved", prompt(17), 10, generated=answer[:4], top_logprobs=0))
    assert len(heard["moved"]) == 6
