"""Replicas of one engine that use each other's KV memory, and give it back."""

import pytest
import torch

from mesh.requests import FinishReason
from services.worker.engine.lending import balance
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import TokenStep
from tests.services.worker.engine.test_engine import running
from tests.services.worker.engine.test_kv_cache import tiered
from tests.services.worker.engine.tiny import greedy, prompt, replica, request, run, tokens_of

BOOKED, MOST = 16, 30  # blocks


def lender(family: str = "llama") -> PackedReplica:
    return replica(family, blocks=BOOKED, most_kv_bytes=MOST * replica(family)._spec.block_bytes)


def blocks(model: PackedReplica) -> int:
    return model.stats().total_blocks


def block_bytes(model: PackedReplica) -> int:
    return model._spec.block_bytes


def test_a_busy_replica_is_lent_what_an_idle_one_does_not_need() -> None:
    busy, idle = lender(), lender("gpt2")
    prompts = {f"r{n}": prompt(n) for n in (30, 31, 33, 34)}  # 28 blocks at the end
    for name, ids in prompts.items():
        busy.add(request(name, ids, 20))
    produced: list[TokenStep] = []
    most = 0
    with torch.inference_mode():
        while busy.has_work:
            produced += balance([busy.kv_share, idle.kv_share]) if busy.kv_share.presses else []
            produced += busy.step()
            most = max(most, blocks(busy))
            assert blocks(busy) * block_bytes(busy) + blocks(idle) * block_bytes(idle) <= BOOKED * (
                block_bytes(busy) + block_bytes(idle)
            )
    assert tokens_of(produced) == {name: greedy("llama", ids, 20) for name, ids in prompts.items()}
    assert most > BOOKED
    assert blocks(idle) >= BOOKED // 8
    assert busy.stats().preemptions == 0


def test_a_replica_gets_back_what_it_brought_and_the_borrower_goes_on_with_less() -> None:
    borrower, owner = lender(), lender()
    for n in (30, 31, 33, 34):
        borrower.add(request(f"b{n}", prompt(n), 20))
    produced: list[TokenStep] = []
    with torch.inference_mode():
        for _ in range(4):
            produced += balance([borrower.kv_share, owner.kv_share])
            produced += borrower.step()
        assert blocks(borrower) > BOOKED
        for n in (40, 41):
            owner.add(request(f"o{n}", prompt(n), 24))
        while owner.has_work or borrower.has_work:
            for one in (owner, borrower):
                produced += balance([borrower.kv_share, owner.kv_share]) if one.kv_share.presses else []
                produced += one.step() if one.has_work else []
            if owner.has_work:
                assert blocks(borrower) + blocks(owner) <= 2 * BOOKED
    expected = {f"b{n}": greedy("llama", prompt(n), 20) for n in (30, 31, 33, 34)}
    assert tokens_of(produced) == expected | {f"o{n}": greedy("llama", prompt(n), 24) for n in (40, 41)}
    assert owner.stats().preemptions == 0
    assert borrower.stats().preemptions > 0
    assert all(one.stats().free_blocks == blocks(one) for one in (owner, borrower))


def test_what_a_shrinking_pool_held_goes_down_to_host_memory() -> None:
    model, tier = tiered(blocks=16)
    run(model, [request("r", prompt(40))])
    assert model.kv_share.resize(2 * block_bytes(model)) == []
    assert (blocks(model), tier.cached_bytes > 0) == (2, True)
    model.kv_share.resize(16 * block_bytes(model))
    assert tokens_of(run(model, [request("again", prompt(40))])) == {"again": greedy("llama", prompt(40), 24)}
    assert model.stats().raised_tokens > 0


def test_memory_that_is_lent_is_no_longer_had() -> None:
    model = lender()
    model.kv_share.resize(MOST * block_bytes(model))
    run(model, [request("r", prompt(100), 4)])
    pool = model._runner.pool
    assert int(pool.buffer.count_nonzero()) > pool.spec.block_bytes * MOST // 2
    model.kv_share.resize(0)
    assert int(pool.buffer.count_nonzero()) < pool.spec.block_bytes * MOST // 4  # but for pages that are shared


def test_a_shrinking_replica_ends_imports_before_it_preempts() -> None:
    source, target = lender(), lender()
    source.add(request("moved", prompt(40)))
    target.add(request("runs", prompt(20)))
    with torch.inference_mode():
        source.step()
        target.step()
        target.arrivals.begin(source.departures.describe("moved"))
        ended = target.kv_share.resize(5 * block_bytes(target))
    assert [(step.request_id, step.finish) for step in ended] == [("moved", FinishReason.ERROR)]
    assert (target.stats().running, target.stats().preemptions, blocks(target)) == (1, 0, 5)


def test_an_engine_lends_at_step_boundaries_and_takes_back_what_leaves_with_its_owner() -> None:
    busy, idle = lender(), lender("gpt2")
    with running(busy, idle) as (engine, heard):
        most = []
        heard.react = lambda step: most.append(blocks(busy))
        for n in (30, 31, 33, 34):
            engine.submit(request(f"r{n}", prompt(n), 20))
        for n in (30, 31, 33, 34):
            assert tokens_of(heard.wait(f"r{n}")) == {f"r{n}": greedy("llama", prompt(n), 20)}
        assert max(most) > BOOKED
        engine.remove_replica("gpt2").result(30)
        assert blocks(busy) == BOOKED


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_time_is_shared_by_weight_however_much_a_step_costs(weight: float) -> None:
    clock = 0.0
    spent = {"cheap": 0.0, "dear": 0.0}

    class Costly(PackedReplica):
        """Each step turns the clock by what it is said to cost."""

        cost_s = 1.0

        def step(self) -> list[TokenStep]:
            nonlocal clock
            clock += self.cost_s
            spent[self.name] += self.cost_s
            return super().step()

    cheap, dear = replica(name="cheap"), replica(name="dear")
    cheap.__class__ = dear.__class__ = Costly
    dear.cost_s = 4.0  # type: ignore[attr-defined]
    with running(clock=lambda: clock) as (engine, heard):
        engine.add_replica(cheap)
        engine.add_replica(dear)
        engine.set_weight("dear", weight)
        heard.gate.clear()
        engine.submit(request("first", prompt(3), 1, on="cheap"))
        engine.submit(request("c", prompt(3), 400, on="cheap"))
        engine.submit(request("d", prompt(3), 100, on="dear"))
        heard.gate.set()
        heard.wait("d")
        share = spent["dear"] / (spent["dear"] + spent["cheap"])
        assert abs(share - weight / (1 + weight)) < 0.05
        engine.cancel("c")
