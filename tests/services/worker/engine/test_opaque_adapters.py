"""Adapters on models that run one sequence at a time: each request gets the tokens of its own merged model."""

from typing import Any

import pytest
import torch

from mesh.requests import FinishReason, Pooling
from services.worker.engine.request import TokenStep
from tests.services.worker.engine.lora import Trained
from tests.services.worker.engine.opaque_families import fresh, greedy, replica
from tests.services.worker.engine.tiny import prompt, request, run, tokens_of

TARGETS: dict[str, dict[str, Any]] = {
    "bloom": {"target_modules": ["query_key_value", "dense_h_to_4h"]},
    "gptj": {"target_modules": ["q_proj", "fc_in", "lm_head"]},
    "qwen3_next": {"target_modules": ["in_proj_qkvz", "out_proj", "q_proj", "o_proj"]},
    "mamba2": {"target_modules": ["in_proj"]},
    "phi3:longrope": {"target_modules": ["qkv_proj", "down_proj"]},
}
COUNT = 12


@pytest.mark.parametrize("family", TARGETS)
def test_sequences_of_base_and_adapters_take_turns_each_with_its_own_tokens(family: str) -> None:
    model = replica(family)
    adapters = {name: Trained(fresh(family), seed, TARGETS[family]) for seed, name in enumerate("ab", 1)}
    for name, one in adapters.items():
        model.add_adapter(one.on(model, name))
    try:
        asked = {f"{name}{n}": (name, prompt(n)) for n in (5, 27) for name in (family, *adapters)}
        requests = [request(key, ids, COUNT, on=name) for key, (name, ids) in asked.items()]
        produced = tokens_of(run(model, requests, steps_between=3))
        for key, (name, ids) in asked.items():
            oracle = adapters[name].greedy(ids, COUNT) if name in adapters else greedy(family, ids, COUNT)
            assert produced[key] == oracle, key
        assert adapters["a"].greedy(prompt(27), COUNT) != greedy(family, prompt(27), COUNT)
    finally:
        for name in adapters:  # the module is made once, for all tests
            model.remove_adapter(name)


def test_an_adapter_that_goes_takes_its_requests_along_and_is_counted_apart() -> None:
    model, one = replica("gptj"), Trained(fresh("gptj"), 1, TARGETS["gptj"])
    model.add_adapter(one.on(model, "a"))
    produced: list[TokenStep] = []
    with torch.inference_mode():
        for name in ("a", "gptj"):
            model.add(request(name, prompt(9), COUNT, on=name))
        for _ in range(6):
            produced += model.step()
        assert (model.stats("a").running, model.stats("gptj").running, model.stats().running) == (1, 1, 2)
        mine, base = (model.embed(name, [prompt(5)], Pooling.LAST) for name in ("a", "gptj"))
        assert not torch.allclose(mine, base)
        (ended,) = model.remove_adapter("a")
        while model.has_work:
            produced += model.step()
    assert (ended.request_id, ended.finish) == ("a", FinishReason.ERROR)
    assert tokens_of(produced)["gptj"] == greedy("gptj", prompt(9), COUNT)
    assert not any(home._forward_hooks for home in model.module.modules())
