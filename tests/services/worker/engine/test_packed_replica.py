from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.requests import FinishReason, TokenBias
from services.worker.engine.batch import Limits
from services.worker.engine.errors import EmptyPrompt, PromptTooLong, TokenOutOfRange
from services.worker.engine.model import probe_kv
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import TokenStep
from tests.services.worker.engine.tiny import (
    BLOCK_TOKENS,
    FAMILIES,
    VOCABULARY,
    body,
    greedy,
    prompt,
    replica,
    request,
    run,
    tokens_of,
)

LENGTHS = (5, 17, 40, 9, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_staggered_chunked_batches_equal_one_at_a_time(family: str) -> None:
    model = replica(family, limits=Limits(batch_tokens=24))
    prompts = {f"r{n}": prompt(n) for n in LENGTHS}
    produced = run(model, [request(name, ids) for name, ids in prompts.items()], steps_between=3)
    assert tokens_of(produced) == {name: greedy(family, ids, 24) for name, ids in prompts.items()}
    assert {s.request_id: s.finish for s in produced} == dict.fromkeys(prompts, FinishReason.LENGTH)
    assert model.stats().free_blocks == model.stats().total_blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cached_prefix_gives_the_same_tokens(family: str) -> None:
    model = replica(family)
    first = prompt(40)
    answer = greedy(family, first, 24)
    assert tokens_of(run(model, [request("turn 1", first)])) == {"turn 1": answer}
    second = first + answer + prompt(3)
    assert tokens_of(run(model, [request("turn 2", second)])) == {"turn 2": greedy(family, second, 24)}
    assert model.stats().prefix_tokens == (len(first) + len(answer) - 1) // BLOCK_TOKENS * BLOCK_TOKENS


def test_a_prompt_that_is_cached_to_its_end_still_computes_its_last_token() -> None:
    model = replica()
    for _ in range(2):
        assert tokens_of(run(model, [request("r", prompt(40))])) == {"r": greedy("llama", prompt(40), 24)}
    assert model.stats().prefix_tokens == 32


@pytest.mark.parametrize("family", FAMILIES)
def test_a_preempted_request_goes_on_where_it_was(family: str) -> None:
    model = replica(family, blocks=12, limits=Limits(batch_tokens=24))
    prompts = {f"r{n}": prompt(n) for n in (9, 10, 11, 17)}
    produced = run(model, [request(name, ids) for name, ids in prompts.items()])
    assert tokens_of(produced) == {name: greedy(family, ids, 24) for name, ids in prompts.items()}
    assert model.stats().preemptions > 0
    assert model.stats().free_blocks == 12


def test_a_preempted_request_goes_on_before_those_that_came_later() -> None:
    model = replica(blocks=8, limits=Limits(running=2))
    third = request("3", prompt(3), 4)  # would find its one block sooner than the second finds its five
    served = [step.request_id for step in run(model, [request("1", prompt(17)), request("2", prompt(18)), third])]
    assert model.stats().preemptions > 0
    last_of_first = len(served) - 1 - served[::-1].index("1")
    assert served.index("3") > last_of_first


@pytest.mark.parametrize("family", FAMILIES)
def test_a_request_rebuilt_from_its_tokens_goes_on_the_same(family: str) -> None:
    answer = greedy(family, prompt(17), 24)
    produced = run(replica(family), [request("moved", prompt(17), generated=answer[:10])])
    assert (produced[0].seq, len(produced)) == (10, 14)
    assert tokens_of(produced) == {"moved": answer[10:]}


SEEDED: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 20},
    {"temperature": 1.3, "top_p": 0.8, "min_p": 0.01},
    {"temperature": 1.0, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"temperature": 0.9, "logit_bias": (TokenBias(17, 4.0), TokenBias(300, -100.0)), "top_logprobs": 3},
]


def test_seeded_sampling_is_the_same_alone_batched_and_rebuilt() -> None:
    requests = [request(f"r{i}", prompt(12 + i), seed=i, **params) for i, params in enumerate(SEEDED)]
    alone = {name: ids for one in requests for name, ids in tokens_of(run(replica(), [one])).items()}
    assert tokens_of(run(replica(), requests, steps_between=2)) == alone
    rebuilt = [
        request(f"r{i}", prompt(12 + i), seed=i, generated=alone[f"r{i}"][:9], **params)
        for i, params in enumerate(SEEDED)
    ]
    assert tokens_of(run(replica(), rebuilt)) == {name: ids[9:] for name, ids in alone.items()}
    other = request("r0", prompt(12), seed=99, **SEEDED[0])
    assert tokens_of(run(replica(), [other]))["r0"] != alone["r0"]


PARAMS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.6, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 0, 3, 40]),
        "top_p": st.sampled_from([1.0, 1.0, 0.7, 0.95]),
        "min_p": st.sampled_from([0.0, 0.0, 0.02]),
        "repetition_penalty": st.sampled_from([1.0, 1.2]),
        "presence_penalty": st.sampled_from([0.0, -0.5]),
        "frequency_penalty": st.sampled_from([0.0, 0.7]),
        "logit_bias": st.sampled_from([(), (TokenBias(9, -100.0), TokenBias(50, 2.0))]),
        "seed": st.integers(0, 2**64 - 1),
    }
)


@settings(max_examples=4, deadline=None)
@given(st.lists(PARAMS, min_size=2, max_size=5), st.integers(0, 3), st.integers(1, 11), st.integers(12, 40))
def test_whatever_chooses_the_tokens_they_depend_on_seed_and_position_alone(
    params: list[dict[str, Any]], steps_between: int, cut: int, blocks: int
) -> None:
    """Alone; batched with others, staggered, in a pool that may be too small for all; begun again from a log."""
    requests = [request(f"r{i}", prompt(7 + 3 * i), 12, **one) for i, one in enumerate(params)]
    alone = {name: ids for one in requests for name, ids in tokens_of(run(replica(), [one])).items()}
    crowded = replica(blocks=blocks, limits=Limits(batch_tokens=24))
    assert tokens_of(run(crowded, requests, steps_between)) == alone
    again = [
        request(f"r{i}", prompt(7 + 3 * i), 12, generated=alone[f"r{i}"][:cut], **one) for i, one in enumerate(params)
    ]
    assert tokens_of(run(replica(), again)) == {name: ids[cut:] for name, ids in alone.items()}


def test_a_stop_token_ends_the_request_and_is_delivered() -> None:
    answer = greedy("llama", prompt(9), 24)
    stop = next(token for token in answer if answer.index(token) > 3)
    produced = run(replica(), [request("r", prompt(9), stop_token_ids=(stop,))])
    assert tokens_of(produced)["r"] == answer[: answer.index(stop) + 1]
    assert [s.finish for s in produced if s.finish] == [FinishReason.STOP]


def test_eos_ends_the_request_unless_ignored() -> None:
    answer = greedy("llama", prompt(9), 24)
    model = replica()
    model.bounds = replace(model.bounds, eos_token_ids=frozenset({answer[5]}))
    assert len(tokens_of(run(model, [request("r", prompt(9))]))["r"]) == answer.index(answer[5]) + 1
    assert tokens_of(run(model, [request("r", prompt(9), ignore_eos=True)]))["r"] == answer


def test_a_request_that_came_complete_ends_at_once_with_no_token() -> None:
    model = replica()
    full = request("full", prompt(4), 3, generated=(7, 8, 9))
    stopped = request("stopped", prompt(4), 9, generated=(7, 8), stop_token_ids=(8,))
    assert model.add(full) == [TokenStep("full", 3, (), FinishReason.LENGTH)]
    assert model.add(stopped) == [TokenStep("stopped", 2, (), FinishReason.STOP)]
    assert not model.has_work


def test_the_pool_bounds_a_sequence() -> None:
    model = replica(blocks=3)
    produced = run(model, [request("r", prompt(20), 100)])
    assert tokens_of(produced)["r"] == greedy("llama", prompt(20), 4)
    assert produced[-1].finish is FinishReason.LENGTH


def test_requests_that_can_never_run_are_refused_by_name() -> None:
    model = replica(blocks=3)
    with pytest.raises(EmptyPrompt):
        model.check(request("r", ()))
    with pytest.raises(PromptTooLong, match="KV memory"):
        model.check(request("r", prompt(24)))
    with pytest.raises(PromptTooLong, match="KV memory"):
        model.check(request("r", prompt(20), generated=(5, 5, 5, 5)))
    with pytest.raises(PromptTooLong, match="positions"):
        replica(blocks=100).check(request("r", prompt(512)))
    with pytest.raises(TokenOutOfRange):
        model.check(request("r", (3, VOCABULARY)))
    with pytest.raises(TokenOutOfRange):
        model.check(request("r", (3,), generated=(-1,)))
    model.check(request("r", prompt(23)))


def test_kv_is_not_shared_between_prompts_that_only_end_alike() -> None:
    model = replica()
    run(model, [request("a", prompt(16) + prompt(16, seed=2))])
    run(model, [request("b", prompt(16, seed=3) + prompt(16, seed=2))])
    assert model.stats().prefix_tokens == 0


def test_addresses_are_salted_with_checkpoint_and_geometry() -> None:
    module = body("llama")

    def root(digest: str, block_tokens: int) -> bytes:
        return PackedReplica("llama", digest, module, 1 << 20, spec=probe_kv(module, block_tokens)).prefix_root

    assert root("a", 8) == root("a", 8)
    assert len({root("a", 8), root("b", 8), root("a", 16)}) == 3


def test_a_step_never_exceeds_its_token_budget_nor_the_running_limit() -> None:
    model = replica(limits=Limits(batch_tokens=16, running=2))
    with torch.inference_mode():
        for n in LENGTHS:
            model.add(request(f"r{n}", prompt(n)))
        while model.has_work:
            model.step()
            assert model.stats().running <= 2
    assert model.stats().steps >= (sum(LENGTHS) + 24) // 16
