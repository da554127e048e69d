"""Drafts change how many forward passes an answer takes, and nothing else of it."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.facts import NumericsLevel
from mesh.requests import FinishReason
from services.worker.engine.batch import Limits
from services.worker.engine.model import probe_kv
from services.worker.engine.numerics import FAST, LEVELS, Numerics
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import EngineRequest, TokenStep
from tests.services.worker.engine.guided import DATE, SCHEMA
from tests.services.worker.engine.scripted import scripted
from tests.services.worker.engine.test_guide import guided
from tests.services.worker.engine.test_packed_replica import LENGTHS, SEEDED
from tests.services.worker.engine.tiny import (
    BLOCK_TOKENS,
    FAMILIES,
    body,
    greedy,
    prompt,
    replica,
    request,
    run,
    tokens_of,
)

MOST = 6


def drafting(family: str = "llama", *, blocks: int = 64, batch_tokens: int = 512) -> PackedReplica:
    """A replica that looks up drafts."""
    return replica(family, blocks=blocks, limits=Limits(batch_tokens, draft_tokens=MOST))


def check_drafted(model: PackedReplica) -> None:
    """That some guesses were right and some wrong, and that nothing is held any more."""
    stats = model.stats()
    assert 0 < stats.taken_tokens < stats.draft_tokens
    assert stats.free_blocks == stats.total_blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_with_right_and_wrong_guesses_the_tokens_are_the_same(family: str) -> None:
    prompts = {f"r{n}": prompt(n) for n in LENGTHS}
    answers = {name: greedy(family, ids, 24) for name, ids in prompts.items()}
    truths = [prompts[name] + answers[name] for name in prompts]
    model = scripted(truths, drafting(family, batch_tokens=48))
    produced = run(model, [request(name, ids) for name, ids in prompts.items()], steps_between=3)
    assert tokens_of(produced) == answers
    assert {step.request_id: step.finish for step in produced if step.finish} == dict.fromkeys(
        prompts, FinishReason.LENGTH
    )
    check_drafted(model)


def test_under_pressure_drafts_take_nobodys_blocks() -> None:
    prompts = {f"r{n}": prompt(n) for n in (9, 10, 11, 17)}
    answers = {name: greedy("llama", ids, 24) for name, ids in prompts.items()}
    model = scripted([prompts[name] + answers[name] for name in prompts], drafting(blocks=12))
    assert tokens_of(run(model, [request(name, ids) for name, ids in prompts.items()])) == answers
    assert model.stats().preemptions > 0
    check_drafted(model)


def several() -> list[EngineRequest]:
    """Drawn in many ways, told of, and guided."""
    told: list[dict[str, Any]] = [*SEEDED, {"temperature": 0.8, "top_logprobs": 2}, {"top_logprobs": 0}]
    drawn = [request(f"r{i}", prompt(12 + i), seed=i, **params) for i, params in enumerate(told)]
    return [*drawn, guided("date", DATE, temperature=1.0, seed=3), guided("schema", SCHEMA)]


def test_drawn_penalised_and_guided_answers_are_the_same_too() -> None:
    alone = {one.request_id: run(replica(), [one]) for one in several()}
    tokens = {name: tokens_of(steps)[name] for name, steps in alone.items()}
    truths = [one.prompt_ids + tokens[one.request_id] for one in several()]
    model = scripted(truths, drafting())
    produced = run(model, several(), steps_between=2)
    assert tokens_of(produced) == tokens
    assert ends(produced) == {name: end for steps in alone.values() for name, end in ends(steps).items()}
    for name, steps in alone.items():
        assert likely(produced, name) == pytest.approx(likely(steps, name), abs=1e-4)
    check_drafted(model)


def ends(steps: Iterable[TokenStep]) -> dict[str, FinishReason]:
    """How each answer ended."""
    return {step.request_id: step.finish for step in steps if step.finish}


def likely(steps: Iterable[TokenStep], name: str) -> list[float]:
    """The log-probabilities of one answer's tokens and of those beside them, one after the other."""
    told = [one for step in steps if step.request_id == name for one in step.logprobs]
    return [number for one in told for number in (one.logprob, *(other.logprob for other in one.top))]


def test_nothing_comes_behind_a_stop_token_or_the_limit() -> None:
    answer = greedy("llama", prompt(9), 24)
    truth = [prompt(9) + answer]
    stop = next(token for token in answer if answer.index(token) > 6)
    stopped = run(scripted(truth, drafting()), [request("r", prompt(9), stop_token_ids=(stop,))])
    assert tokens_of(stopped)["r"] == answer[: answer.index(stop) + 1]
    assert ends(stopped) == {"r": FinishReason.STOP}
    for count in range(1, 9):
        assert tokens_of(run(scripted(truth, drafting()), [request("r", prompt(9), count)]))["r"] == answer[:count]


def test_kv_that_a_draft_brought_is_found_by_the_next_turn_and_a_wrong_guess_is_not() -> None:
    first = prompt(40)
    answer = greedy("llama", first, 24)
    second = first + answer + prompt(3)
    model = scripted([first + answer, second + greedy("llama", second, 24)], drafting())
    run(model, [request("turn 1", first)])
    assert tokens_of(run(model, [request("turn 2", second)])) == {"turn 2": greedy("llama", second, 24)}
    assert model.stats().prefix_tokens == (len(first) + len(answer) - 1) // BLOCK_TOKENS * BLOCK_TOKENS


def repetitive(draft_tokens: int, numerics: Numerics = FAST) -> PackedReplica:
    """A model that soon says the same again and again."""
    module = body("gpt2", initializer_range=0.02)
    spec = probe_kv(module, BLOCK_TOKENS)
    limits = Limits(draft_tokens=draft_tokens)
    return PackedReplica("gpt2", "d", module, 256 * spec.block_bytes, spec=spec, limits=limits, numerics=numerics)


def test_repetitive_text_takes_fewer_forward_passes() -> None:
    slow, quick = repetitive(0), repetitive(8)
    asked = request("r", prompt(17), 64, on="gpt2")
    assert tokens_of(run(quick, [asked])) == tokens_of(run(slow, [asked]))
    assert (slow.stats().steps, slow.stats().draft_tokens) == (64, 0)
    assert quick.stats().steps <= 64 // 3
    assert quick.stats().steps + quick.stats().taken_tokens == 64


@pytest.mark.parametrize("level", [NumericsLevel.BATCH_INVARIANT, NumericsLevel.PATH_INVARIANT])
def test_an_invariant_level_drafts_in_rows_that_would_be_filled_anyway(level: NumericsLevel) -> None:
    """A model alone in its tile drafts; where answers fill it, nobody does."""
    model = repetitive(8, LEVELS[level])
    run(model, [request("r", prompt(17), 24, on="gpt2")])
    assert model.stats().taken_tokens > 0
    full = repetitive(8, LEVELS[level])
    run(full, [request(f"r{i}", prompt(3), 24, on="gpt2") for i in range(LEVELS[level].tile)])
    assert full.stats().draft_tokens == 0


def test_drafts_are_off_unless_asked_for() -> None:
    assert Limits().draft_tokens == 0


@settings(deadline=None, max_examples=8)
@given(
    arrivals=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(0, 4)), min_size=1, max_size=6),
    blocks=st.integers(8, 24),
    batch_tokens=st.integers(8, 64),
    cancel=st.integers(0, 12),
)
def test_on_any_schedule_drafts_change_no_token_and_leave_no_block(
    arrivals: list[tuple[int, int, int]], blocks: int, batch_tokens: int, cancel: int
) -> None:
    asked = [request(f"r{i}", prompt(length, i), count) for i, (length, count, _) in enumerate(arrivals)]
    answers = {one.request_id: greedy("llama", one.prompt_ids, 20)[: one.params.max_tokens] for one in asked}
    truths = [one.prompt_ids + greedy("llama", one.prompt_ids, 20) for one in asked]
    model, produced = scripted(truths, drafting(blocks=blocks, batch_tokens=batch_tokens)), list[TokenStep]()
    with torch.inference_mode():
        for one, (_, _, steps) in zip(asked, arrivals, strict=True):
            produced += model.add(one)
            for _ in range(steps):
                produced += model.step() if model.has_work else []
        for _ in range(cancel):
            produced += model.step() if model.has_work else []
        produced += model.cancel("r0")
        while model.has_work:
            produced += model.step()
    for name, tokens in tokens_of(produced).items():
        assert tokens == answers[name][: len(tokens)]
        assert len(tokens) == len(answers[name]) or name == "r0"
    assert model.stats().free_blocks == model.stats().total_blocks
