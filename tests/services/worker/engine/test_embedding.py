"""Embedding with models that generate, and beside their generations."""

import pytest
import torch

from mesh.requests import FinishReason, Pooling
from services.worker.engine.errors import PromptTooLong, TokenOutOfRange, UnknownReplica
from tests.services.worker.engine.test_engine import PATIENCE_S, running
from tests.services.worker.engine.tiny import FAMILIES, VOCABULARY, greedy, prompt, reference, replica, request

TEXTS = [prompt(length) for length in (40, 3, 17)]  # the first is longer than the windows


@torch.inference_mode()
def hidden_states(family: str, tokens: tuple[int, ...]) -> torch.Tensor:
    """transformers' own, [tokens, width]."""
    hidden: torch.Tensor = reference(family).base_model(input_ids=torch.tensor([tokens]), use_cache=False)[0][0]
    return hidden


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_of_a_ragged_batch_are_transformers_own(family: str) -> None:
    one = replica(family)
    with torch.inference_mode():
        last, mean = one.embed(family, TEXTS, Pooling.LAST), one.embed(family, TEXTS, Pooling.MEAN)
    each = [hidden_states(family, text) for text in TEXTS]
    torch.testing.assert_close(last, torch.stack([hidden[-1] for hidden in each]), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(mean, torch.stack([hidden.mean(0) for hidden in each]), atol=2e-5, rtol=1e-4)
    assert one.stats().free_blocks == one.stats().total_blocks


def test_embeddings_and_answers_take_turns_and_change_nothing_for_each_other() -> None:
    with running(replica()) as (engine, heard):
        heard.gate.clear()
        engine.submit(request("r", prompt(20), 30))
        job = engine.embed("llama", [prompt(100, seed) for seed in range(40)], Pooling.MEAN)
        steps_before = engine.stats().replicas["llama"].steps
        heard.gate.set()
        vectors = torch.tensor(job.done.result(PATIENCE_S))
        assert engine.stats().replicas["llama"].steps > steps_before
        heard.wait("r")
        assert tuple(token for step in heard.of("r") for token in step.tokens) == greedy("llama", prompt(20), 30)
    expected = torch.stack([hidden_states("llama", prompt(100, seed)).mean(0) for seed in range(40)])
    torch.testing.assert_close(vectors, expected, atol=2e-5, rtol=1e-4)


def test_who_leaves_costs_at_most_the_batch_that_runs() -> None:
    with running(replica()) as (engine, heard):
        heard.gate.clear()
        engine.submit(request("r", prompt(5), 3))
        left = engine.embed("llama", [prompt(100, seed) for seed in range(50)], Pooling.MEAN)
        left.left = True
        stays = engine.embed("llama", [prompt(9)], Pooling.LAST)
        heard.gate.set()
        assert len(stays.done.result(PATIENCE_S)) == 1
        assert not left.vectors
        assert heard.wait("r")[-1].finish is FinishReason.LENGTH


def test_what_cannot_be_embedded_is_refused_before_anything_is_queued() -> None:
    with running(replica()) as (engine, _):
        for inputs, error in (((prompt(513),), PromptTooLong), (((VOCABULARY,),), TokenOutOfRange)):
            with pytest.raises(error):
                engine.embed("llama", inputs, Pooling.MEAN)
        with pytest.raises(UnknownReplica):
            engine.embed("nobody", [prompt(3)], Pooling.MEAN)


def test_a_replica_that_is_removed_fails_what_it_has_not_embedded() -> None:
    with running(replica()) as (engine, heard):
        heard.gate.clear()
        engine.submit(request("r", prompt(5), 3))
        heard.wait("r", 1)
        job = engine.embed("llama", [prompt(100, seed) for seed in range(50)], Pooling.MEAN)
        removed = engine.remove_replica("llama")
        heard.gate.set()
        removed.result(PATIENCE_S)
        with pytest.raises(UnknownReplica):
            job.done.result(PATIENCE_S)
