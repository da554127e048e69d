"""Recorded decoding steps, on the host by twins of what a GPU has: a kernel in torch, and recordings that compute."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from mesh.facts import NumericsLevel
from mesh.requests import FinishReason
from services.worker.engine.attention import Context, EachRow, Score
from services.worker.engine.batch import Limits
from services.worker.engine.costs import Costs
from services.worker.engine.decoding import Decoding
from services.worker.engine.host_tier import HostTier
from services.worker.engine.numerics import LEVELS
from services.worker.engine.paged import PageTable
from services.worker.engine.pool import LayerPool
from tests.services.worker.engine.lora import trained
from tests.services.worker.engine.tiny import greedy, prompt, replica, request, run, tokens_of

LENGTHS = (5, 17, 40, 9, 1)


def by_torch(query: Tensor, pool: LayerPool, score: Score, table: PageTable, pieces: int) -> Tensor:
    """What paged_kernel.attend computes."""
    contexts, size = [], table.block_tokens
    for length, start in zip(table.lengths.tolist(), table.starts.tolist(), strict=True):
        own = table.blocks[start : start + -(-length // size), None] * size + torch.arange(size)
        contexts.append(Context(length, -1, own.flatten()[:length]))
    return EachRow(contexts).attend(query, pool, score)


@dataclass
class Recorder:
    """Notes how many rows each recording has, and how often it is replayed."""

    refuses: bool = False
    replays: dict[int, int] = field(default_factory=dict)

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing")
        rows = len(compute())
        assert rows not in self.replays, "recorded twice"
        self.replays[rows] = 0

        def replay() -> Tensor:
            self.replays[rows] += 1
            return compute()

        return replay

    @property
    def decoding(self) -> Decoding:
        return Decoding(by_torch, lambda: self)


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "deepseek_v3", "gemma2"])
def test_answers_that_come_and_go_are_those_of_transformers(family: str) -> None:
    recorder = Recorder()
    model = replica(family, limits=Limits(batch_tokens=24, running=8), decoding=recorder.decoding)
    prompts = {f"r{n}": prompt(n) for n in LENGTHS}
    asked = [request(name, ids, 24 + 4 * i) for i, (name, ids) in enumerate(prompts.items())]
    produced = tokens_of(run(model, asked, steps_between=3))
    assert produced == {one.request_id: greedy(family, one.prompt_ids, one.params.max_tokens) for one in asked}
    assert set(recorder.replays) == {1, 2, 4, 8}
    assert sum(recorder.replays.values()) > 20
    assert model.stats().free_blocks == model.stats().total_blocks


def test_sequences_that_give_way_and_memory_that_shrinks_leave_recordings_right() -> None:
    recorder, tier = Recorder(), HostTier(1 << 22)
    model = replica(blocks=12, tier=tier, costs=Costs(token_s=1e6), decoding=recorder.decoding)
    first = [request(f"r{n}", prompt(n), 20) for n in (17, 30, 9)]
    produced = tokens_of(run(model, first))
    model.kv_share.resize(8 * model._cache.block_bytes)
    second = [request(f"s{n}", prompt(n, seed=2), 20) for n in (17, 30, 9)]
    produced |= tokens_of(run(model, second))
    assert produced == {one.request_id: greedy("llama", one.prompt_ids, 20) for one in [*first, *second]}
    assert model.stats().preemptions
    assert recorder.replays[1]
    assert recorder.replays[2]


def test_what_cannot_be_recorded_is_computed_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = replica(decoding=Recorder(refuses=True).decoding)
    asked = [request(f"r{n}", prompt(n)) for n in LENGTHS]
    assert tokens_of(run(model, asked)) == {one.request_id: greedy("llama", one.prompt_ids, 24) for one in asked}
    assert [record.message for record in caplog.records] == ["decoding steps are not recorded"]


def test_steps_with_adapters_or_guesses_are_not_recorded_and_right() -> None:
    recorder, one = Recorder(), trained("llama", 1, target_modules="all-linear")
    model = replica(limits=Limits(draft_tokens=3), decoding=recorder.decoding)
    model.add_adapter(one.on(model, "a"))
    produced = tokens_of(run(model, [request("a", prompt(17), 30, on="a"), request("base", prompt(9), 60)]))
    assert produced == {"a": one.greedy(prompt(17), 30), "base": greedy("llama", prompt(9), 60)}
    assert set(recorder.replays) == {1}


@pytest.mark.parametrize("level", [NumericsLevel.BATCH_INVARIANT, NumericsLevel.PATH_INVARIANT])
def test_invariant_levels_use_the_kernel_and_no_recording(level: NumericsLevel) -> None:
    recorder = Recorder()
    model = replica(numerics=LEVELS[level], decoding=recorder.decoding)
    with torch.inference_mode():
        model.prove()
    asked = [request(f"r{n}", prompt(n), 12) for n in (5, 17)]
    assert tokens_of(run(model, asked)) == {one.request_id: greedy("llama", one.prompt_ids, 12) for one in asked}
    assert not recorder.replays


def test_a_cancelled_row_leaves_the_others_right() -> None:
    model = replica(decoding=Recorder().decoding)
    for n in (5, 17, 9):
        model.add(request(f"r{n}", prompt(n)))
    with torch.inference_mode():
        produced = [step for _ in range(9) for step in model.step()]
        produced += model.cancel("r17")
    told = tokens_of(produced + run(model, []))
    assert [step.finish for step in produced if step.request_id == "r17"][-1] is FinishReason.CANCELLED
    assert {name: told[name] for name in ("r5", "r9")} == {f"r{n}": greedy("llama", prompt(n), 24) for n in (5, 9)}
    assert told["r17"] == greedy("llama", prompt(17), 24)[: len(told["r17"])]
