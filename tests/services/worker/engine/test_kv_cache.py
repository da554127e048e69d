"""What leaves a pool comes back: evicted blocks through host memory, preempted sequences by copy or by computing."""

from typing import Any

import pytest
import torch

from mesh.facts import NumericsLevel
from services.worker.engine.batch import Limits
from services.worker.engine.costs import Costs
from services.worker.engine.host_tier import HostTier
from services.worker.engine.numerics import FAST, Numerics
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import TokenStep
from tests.services.worker.engine.tiny import (
    BLOCK_TOKENS,
    FAMILIES,
    FURTHER,
    greedy,
    prompt,
    replica,
    request,
    run,
    tokens_of,
)

SINGLE = Numerics(NumericsLevel.BATCH_INVARIANT, tile=16, chunk_tokens=64)  # these prompts share no whole chunk


def copying() -> Costs:
    """Copying costs nothing, and a still clock leaves it so."""
    return Costs(token_s=1.0, byte_s=0.0)


def computing() -> Costs:
    """Copying costs more than any computation."""
    return Costs(token_s=1e-9, byte_s=1.0)


def still() -> float:
    return 0.0


def tiered(family: str = "llama", tier_blocks: int = 64, **options: Any) -> tuple[PackedReplica, HostTier]:
    tier = HostTier(tier_blocks * replica(family)._spec.block_bytes)
    made: dict[str, Any] = {"tier": tier, "costs": copying(), "clock": still, **options}
    return replica(family, **made), tier


@pytest.mark.parametrize("family", [*FAMILIES, *FURTHER])
def test_an_evicted_prefix_comes_back_from_host_memory(family: str) -> None:
    model, _ = tiered(family, blocks=12)
    run(model, [request("turn 1", prompt(40)), request("other", prompt(70, seed=2))])  # the other takes every block
    before = model.stats()
    assert tokens_of(run(model, [request("turn 2", prompt(40))])) == {"turn 2": greedy(family, prompt(40), 24)}
    after = model.stats()
    assert after.raised_tokens > before.raised_tokens
    assert after.prefix_tokens - before.prefix_tokens == 39 // BLOCK_TOKENS * BLOCK_TOKENS
    assert after.free_blocks == after.total_blocks


def test_without_host_memory_an_evicted_prefix_is_computed_again() -> None:
    model, tier = tiered(blocks=12, tier_blocks=0)
    run(model, [request("turn 1", prompt(40)), request("other", prompt(70, seed=2))])
    assert tokens_of(run(model, [request("turn 2", prompt(40))])) == {"turn 2": greedy("llama", prompt(40), 24)}
    assert (model.stats().raised_tokens, tier.cached_bytes) == (0, 0)


def test_what_is_cheaper_to_compute_is_not_copied() -> None:
    model, tier = tiered(blocks=12, costs=computing())
    run(model, [request("turn 1", prompt(40)), request("other", prompt(70, seed=2))])
    assert tokens_of(run(model, [request("turn 2", prompt(40))])) == {"turn 2": greedy("llama", prompt(40), 24)}
    assert (model.stats().raised_tokens, tier.cached_bytes) == (0, 0)


def test_host_memory_serves_all_replicas_and_mixes_nobody_up() -> None:
    tier = HostTier(1 << 20)
    models = {
        family: replica(family, blocks=12, tier=tier, costs=copying(), clock=still) for family in ("llama", "gpt2")
    }
    for turn in (1, 2):
        for family, model in models.items():
            requests = [request(f"{turn}", prompt(40), on=family), request("other", prompt(70, seed=2), on=family)]
            assert tokens_of(run(model, requests))[f"{turn}"] == greedy(family, prompt(40), 24)
    assert all(model.stats().raised_tokens > 0 for model in models.values())


def kv_of(model: PackedReplica) -> dict[str, torch.Tensor]:
    """Bytes [blocks, block_bytes] of each running sequence's full blocks."""
    pool = model._runner.pool
    return {
        g.request.request_id: pool.read_all(g.table.blocks[: g.kv_len // BLOCK_TOKENS]) for g in model._roster.running
    }


OLD, YOUNG = prompt(20), prompt(18)


def under_pressure(model: PackedReplica) -> None:
    """Two sequences, which the pool cannot hold to their ends: the young one gives way in the midst of a block."""
    model.add(request("old", OLD, 40))
    model.add(request("young", YOUNG, 24))


@pytest.mark.parametrize("exactly", [False, True])
def test_a_preempted_sequence_comes_back_with_the_bytes_it_had(exactly: bool) -> None:
    model, tier = tiered(blocks=8, numerics=SINGLE if exactly else FAST)
    under_pressure(model)
    produced: list[TokenStep] = []
    most_lent, was = 0, torch.empty(0)
    with torch.inference_mode():
        while model.has_work:
            before = kv_of(model)
            produced += model.step()
            after = kv_of(model)
            was = before["young"] if "young" in before.keys() - after.keys() and model._roster.waiting else was
            if "young" in after.keys() - before.keys() and len(was):
                assert torch.equal(after["young"][: len(was)], was)
            most_lent = max(most_lent, tier.lent_bytes)
    assert (model.stats().preemptions, len(was)) == (1, 3)
    assert most_lent == (4 if exactly else 1) * model._spec.block_bytes
    assert tokens_of(produced) == {"old": greedy("llama", OLD, 40), "young": greedy("llama", YOUNG, 24)}
    assert (tier.lent_bytes, model.stats().free_blocks) == (0, 8)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "deepseek_v3"])
def test_a_swapped_sequence_goes_on_where_it_was_without_computing_again(family: str) -> None:
    model, tier = tiered(family, blocks=12, tier_blocks=0, numerics=SINGLE, limits=Limits(batch_tokens=24))
    prompts = {f"r{n}": prompt(n) for n in (9, 10, 11, 17)}
    computed = 0
    with torch.inference_mode():
        for name, ids in prompts.items():
            model.add(request(name, ids))
        produced: list[TokenStep] = []
        while model.has_work:
            plan = model._next._plan()
            computed += sum(span.count for span in plan.spans)
            produced += model.step()
    assert tokens_of(produced) == {name: greedy(family, ids, 24) for name, ids in prompts.items()}
    assert model.stats().preemptions > 0
    assert computed == sum(len(ids) + 23 for ids in prompts.values())  # no token twice
    assert (tier.lent_bytes, model.stats().free_blocks) == (0, 12)


def test_a_cancelled_sequence_that_has_given_way_leaves_nothing_behind() -> None:
    model, tier = tiered(blocks=8, numerics=SINGLE)
    with torch.inference_mode():
        under_pressure(model)
        while not tier.lent_bytes:
            model.step()
        assert [step.request_id for step in model.cancel("young")] == ["young"]
    assert tier.lent_bytes == 0
    old = tokens_of(run(model, []))["old"]
    assert old == greedy("llama", OLD, 40)[-len(old) :]
    assert model.stats().free_blocks == 8


def test_what_was_saved_is_dropped_when_what_led_it_is_gone() -> None:
    model, tier = tiered(blocks=8, tier_blocks=1)  # room for what is saved, and then for none of what leads it
    produced: list[TokenStep] = []
    with torch.inference_mode():
        under_pressure(model)
        while not tier.lent_bytes:
            produced += model.step()
    produced += run(model, [])
    assert tokens_of(produced) == {"old": greedy("llama", OLD, 40), "young": greedy("llama", YOUNG, 24)}
    assert (tier.lent_bytes, model.stats().free_blocks) == (0, 8)
