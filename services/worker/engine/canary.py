"""A few tokens that a replica of an invariant level computes before it serves: alone, and at the end of a full pass
beside others. Equal bits are the proof that its level holds on this device; they become part of its fingerprint."""

from collections.abc import Callable

import torch
from torch import Tensor

from services.worker.engine.batch import Paged, Span
from services.worker.engine.errors import NumericsNotHeld, PoolTooSmall
from services.worker.engine.kv_cache import KVCache
from services.worker.engine.packed import PackedRunner
from services.worker.engine.request import EngineRequest
from services.worker.engine.sample import SamplingParams

PROMPT_TOKENS, ANSWER_TOKENS = 8, 4
NAME = "canary"

Make = Callable[[EngineRequest], Paged]


def prove(runner: PackedRunner, cache: KVCache, make: Make, vocabulary: int) -> bytes:
    """The canary's logits, as bytes. NumericsNotHeld if they depend on what else is in a pass. All blocks must be
    idle, and are again afterwards; only the thread that runs the replica may call."""
    canary = make(_request(NAME, PROMPT_TOKENS, ANSWER_TOKENS, 13, vocabulary))
    rows = ANSWER_TOKENS if runner.numerics.cuts_prompts else len(canary.tokens)
    beside = make(_request("beside", 1, runner.numerics.tile - rows - 1, 29, vocabulary))
    needed = sum(one.table.missing(len(one.tokens)) for one in (canary, beside))
    if needed > cache.blocks.idle:
        raise PoolTooSmall(f"{runner.numerics.level} is proven on {needed} KV blocks; give the replica more KV memory")
    try:
        for one in (canary, beside):
            cache.grow(one, len(one.tokens))
        cache.settle()
        alone, among = _bits(runner, [canary]), _bits(runner, [beside, canary])
    finally:
        for one in (canary, beside):
            cache.leave(one)
    if alone != among:
        raise NumericsNotHeld(
            f"{runner.numerics.level} does not hold for this model on this device: what else is in a pass shows in "
            "its logits; deploy it with numerics fast"
        )
    return alone


def _request(name: str, prompt: int, answer: int, step: int, vocabulary: int) -> EngineRequest:
    """Tokens from all over the vocabulary; those of the answer are given, as after a move."""
    tokens = tuple((7919 * i + step) % vocabulary for i in range(1, prompt + answer + 1))
    return EngineRequest(name, name, tokens[:prompt], SamplingParams(max_tokens=answer + 1), tokens[prompt:])


def _bits(runner: PackedRunner, generations: list[Paged]) -> bytes:
    logits: Tensor = runner.run([Span(one, len(one.tokens)) for one in generations])[-1]
    return logits.contiguous().view(torch.uint8).cpu().numpy().tobytes()
