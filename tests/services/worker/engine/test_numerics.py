"""Logits compared bit by bit: what the invariant levels promise, and that `fast`, which promises nothing, differs."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mesh.facts import NumericsLevel
from services.worker.engine.batch import Limits, Span
from services.worker.engine.costs import Costs
from services.worker.engine.host_tier import HostTier
from services.worker.engine.model import probe_kv
from services.worker.engine.numerics import FAST, LEVELS, Numerics
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import EngineRequest, TokenStep
from tests.services.worker.engine.lora import ATTENTION, trained
from tests.services.worker.engine.scripted import scripted
from tests.services.worker.engine.test_moving import hand_over
from tests.services.worker.engine.tiny import BLOCK_TOKENS, body, prompt, request, tokens_of

Rows = Mapping[tuple[str, int], bytes]  # a row of logits by request and index in its answer

BATCH = replace(LEVELS[NumericsLevel.BATCH_INVARIANT], chunk_tokens=32)
PATH = LEVELS[NumericsLevel.PATH_INVARIANT]
FAMILIES = ("llama", "gpt2", "gemma3_text", "gpt_oss", "qwen3_moe", "deepseek_v3")
HALVES = ("llama in bfloat16", "qwen3_moe in bfloat16")
COUNT = 16
REQUESTS = tuple(
    request(f"r{length}", prompt(length), COUNT, temperature=0.8 * (i % 2), top_p=0.95, seed=i)
    for i, length in enumerate((5, 33, 70))
)
OTHERS = tuple(request(f"other {length}", prompt(length, seed=2), 40) for length in (3, 50, 21))


class Recording(PackedReplica):
    """Keeps every row of logits that a token was drawn from."""

    @functools.cached_property
    def rows(self) -> dict[tuple[str, int], bytes]:
        """As Rows."""
        return {}

    def _deliver(self, spans: list[Span], logits: Tensor) -> list[TokenStep]:
        steps = super()._deliver(spans, logits)
        first = 0
        for span, step in zip(spans, steps, strict=True):
            for i in range(len(step.tokens)):
                row = logits[first + i].contiguous()
                self.rows[step.request_id, step.seq + i] = row.view(torch.uint8).numpy().tobytes()
            first += 1 + len(span.draft)
        return steps


def recording(
    family: str, numerics: Numerics, blocks: int = 128, *, draft_tokens: int = 0, **options: Any
) -> Recording:
    name, _, dtype = family.partition(" in ")
    module = body(name).to(getattr(torch, dtype or "float32"))
    spec = probe_kv(module, BLOCK_TOKENS)
    options |= {"spec": spec, "limits": Limits(batch_tokens=48, draft_tokens=draft_tokens), "numerics": numerics}
    return Recording(family, family, module, blocks * spec.block_bytes, **options)


def run(model: Recording, requests: Iterable[EngineRequest], steps_between: int = 0) -> list[TokenStep]:
    """Steps until all is done, a new request every `steps_between` steps; of the steps, those of REQUESTS."""
    produced: list[TokenStep] = []
    with torch.inference_mode():
        for one in requests:
            model.check(one)
            produced += model.add(one)
            for _ in range(steps_between):
                produced += model.step()
        while model.has_work:
            produced += model.step()
    assert model.stats().free_blocks == model.stats().total_blocks
    return produced


@functools.cache
def alone(family: str, numerics: Numerics) -> tuple[Rows, Mapping[str, tuple[int, ...]]]:
    """The logits of each request in a replica of its own, and the answers."""
    rows: dict[tuple[str, int], bytes] = {}
    answers: dict[str, tuple[int, ...]] = {}
    for one in REQUESTS:
        model = recording(family, numerics)
        answers |= tokens_of(run(model, [one]))
        rows |= model.rows
    return rows, answers


def batched(family: str, numerics: Numerics) -> Rows:
    model = recording(family, numerics)
    run(model, [OTHERS[0], REQUESTS[0], OTHERS[1], *REQUESTS[1:], OTHERS[2]], steps_between=2)
    return model.rows


def computed_anew(family: str, numerics: Numerics) -> Rows:
    """Half of each answer comes with the request, as after a move or a restart."""
    model = recording(family, numerics)
    answers = alone(family, numerics)[1]
    halves = [replace(one, generated=answers[one.request_id][: COUNT // 2]) for one in REQUESTS]
    run(model, [OTHERS[0], *halves, OTHERS[1]], steps_between=1)
    return model.rows


def prefix_found(family: str, numerics: Numerics) -> Rows:
    model = recording(family, numerics)
    longer = [replace(one, request_id=f"{one.request_id}+", prompt_ids=one.prompt_ids + prompt(9)) for one in REQUESTS]
    run(model, longer)
    run(model, REQUESTS)
    assert model.stats().prefix_tokens >= 32 + 64
    return model.rows


def preempted(family: str, numerics: Numerics) -> Rows:
    model = recording(family, numerics, blocks=20)
    run(model, [OTHERS[1], *REQUESTS])
    assert model.stats().preemptions > 0
    return model.rows


def drafted(family: str, numerics: Numerics) -> Rows:
    model = recording(family, numerics, draft_tokens=5)
    answers = alone(family, numerics)[1]
    scripted([one.prompt_ids + answers[one.request_id] for one in REQUESTS], model)
    run(model, REQUESTS, steps_between=2)
    assert 0 < model.stats().taken_tokens < model.stats().draft_tokens
    return model.rows


def swapped(family: str, numerics: Numerics) -> Rows:
    """As preempted, but that computing anew costs so much that KV is always copied out and back."""
    model = recording(family, numerics, blocks=20, tier=HostTier(1 << 24), costs=Costs(token_s=1e6))
    run(model, [OTHERS[1], *REQUESTS])
    assert model.stats().preemptions > 0
    return model.rows


def kv_copied(family: str, numerics: Numerics) -> Rows:
    """In the midst of its answer, each goes on in another replica, which is busy."""
    rows: dict[tuple[str, int], bytes] = {}
    for one in REQUESTS:
        source, target = recording(family, numerics), recording(family, numerics)
        with torch.inference_mode():
            source.add(one)
            while len(source.rows) < COUNT // 2:
                source.step()
            for other in OTHERS:
                target.add(other)
            target.step()
            hand_over(source, target, one.request_id)
        run(target, [])
        rows |= source.rows | target.rows
    return rows


SCENARIOS = (batched, computed_anew, prefix_found, preempted, swapped, kv_copied, drafted)


def differing(found: Rows, expected: Rows) -> list[tuple[str, int]]:
    """Where they differ. Every row of `expected` must have been found, but for what came with the request."""
    shared = [place for place in expected if place in found]
    assert len(shared) >= len(expected) // 2
    return [place for place in shared if found[place] != expected[place]]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("numerics", [BATCH, PATH], ids=lambda numerics: numerics.level)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_invariant_level_gives_the_bits_of_the_request_alone(
    family: str, numerics: Numerics, scenario: Callable[[str, Numerics], Rows]
) -> None:
    assert differing(scenario(family, numerics), alone(family, numerics)[0]) == []


@pytest.mark.parametrize("scenario", [batched, computed_anew], ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("numerics", [BATCH, PATH], ids=lambda numerics: numerics.level)
@pytest.mark.parametrize("family", HALVES)
def test_so_it_does_in_bfloat16(family: str, numerics: Numerics, scenario: Callable[[str, Numerics], Rows]) -> None:
    assert differing(scenario(family, numerics), alone(family, numerics)[0]) == []


@pytest.mark.parametrize(
    ("family", "scenario"),
    [*((family, batched) for family in FAMILIES), *(("llama", scenario) for scenario in SCENARIOS[1:])],
)
def test_fast_does_not(family: str, scenario: Callable[[str, Numerics], Rows]) -> None:
    assert differing(scenario(family, FAST), alone(family, FAST)[0])


@pytest.mark.parametrize("numerics", [BATCH, PATH, FAST], ids=lambda numerics: numerics.level)
def test_an_adapters_bits_depend_on_nobody_else_either_but_at_fast(numerics: Numerics) -> None:
    def adapted(requests: list[EngineRequest]) -> Rows:
        model = recording("llama", numerics)
        for seed in (1, 2):
            model.add_adapter(trained("llama", seed, **ATTENTION).on(model, f"a{seed}"))
        run(model, requests, steps_between=1)
        return model.rows

    mine = replace(REQUESTS[1], replica="a1")
    others = [replace(OTHERS[0], replica="a1"), replace(OTHERS[1], replica="a2"), OTHERS[2]]
    differ = differing(adapted([others[0], mine, *others[1:]]), adapted([mine]))
    assert (differ == []) is (numerics is not FAST)
