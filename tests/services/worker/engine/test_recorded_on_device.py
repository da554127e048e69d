"""Recorded steps where recordings are CUDA graphs, and the kernel is compiled."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from services.worker.engine.batch import Limits
from services.worker.engine.costs import Costs
from services.worker.engine.decoding import BY_TORCH, decoding_on
from services.worker.engine.host_tier import HostTier
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import EngineRequest
from tests.services.worker.engine.lora import trained
from tests.services.worker.engine.on_device import NO_CARD, greedy, packed
from tests.services.worker.engine.tiny import prompt, request, run, tokens_of

pytestmark = [pytest.mark.gpu, NO_CARD]
CUDA = torch.device("cuda")
LENGTHS = (5, 17, 40, 9, 1)


def recordings(model: PackedReplica) -> set[int]:
    assert model._runner._recorded is not None
    return set(model._runner._recorded._replays)


def asked(on: str, count: int = 32) -> list[EngineRequest]:
    return [request(f"r{n}", prompt(n), count + 4 * n % 7, on=on) for n in LENGTHS]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "gpt_oss", "deepseek_v3", "qwen3_moe"])
def test_graphs_give_the_tokens_of_steps_that_are_launched(family: str) -> None:
    model = packed(family, "cuda", limits=Limits(batch_tokens=24, running=8))
    told = tokens_of(run(model, asked(family), steps_between=3))
    launched = decoding_on(CUDA, recorded=False)
    plain = packed(family, "cuda", limits=Limits(batch_tokens=24, running=8), decoding=launched)
    assert told == tokens_of(run(plain, asked(family), steps_between=3))
    if family not in {"gpt_oss", "deepseek_v3", "qwen3_moe"}:  # experts may be counted on the host
        assert recordings(model) == {1, 2, 4, 8}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_answers_are_near_those_by_torch(dtype: torch.dtype) -> None:
    ours, theirs = packed("llama", "cuda", dtype=dtype), packed("llama", "cuda", dtype=dtype, decoding=BY_TORCH)
    found = []
    for model in (ours, theirs):
        run(model, [request("r", prompt(40), 12)])
        model.add(request("again", prompt(40), 12, generated=prompt(11, seed=3)))
        with torch.inference_mode():
            rows = [model._runner.run(model._next.ready().spans)[-1].float()]
            model.cancel("again")
        found += rows
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 3e-2


def test_graphs_stay_right_while_sequences_give_way_and_leave() -> None:
    model = packed("llama", "cuda", blocks=12, tier=HostTier(1 << 22), costs=Costs(token_s=1e6))
    first = [request(f"r{n}", prompt(n), 24) for n in (17, 30, 9)]
    told = tokens_of(run(model, first))
    second = [request(f"s{n}", prompt(n, seed=2), 24) for n in (30, 17, 9)]
    for one in second:
        model.add(one)
    with torch.inference_mode():
        produced = [step for _ in range(9) for step in model.step()] + model.cancel("s9")
    told |= tokens_of(produced + run(model, []))
    assert model.stats().preemptions
    assert {1, 2} <= recordings(model)
    for one in [*first, *second[:2]]:
        assert told[one.request_id] == greedy("llama", "cuda", one.prompt_ids, 24)
    assert model.stats().free_blocks == model.stats().total_blocks


def test_rows_with_adapters_are_launched_and_right() -> None:
    one = trained("llama", 1, target_modules="all-linear")
    model = packed("llama", "cuda")
    model.add_adapter(one.on(model, "a"))
    told = tokens_of(run(model, [request("a", prompt(17), 20, on="a"), request("base", prompt(9), 60)]))
    assert told == {"a": one.greedy(prompt(17), 20), "base": greedy("llama", "cuda", prompt(9), 60)}
    assert recordings(model) == {1}


def test_an_unloaded_replica_gives_its_memory_back() -> None:
    _serve_and_unload()  # the first leaves what cuBLAS keeps of the stream that steps are recorded on
    before = _allocated()
    assert _serve_and_unload() > before
    assert _allocated() <= before + (1 << 20)


def test_what_reads_results_back_is_launched(caplog: pytest.LogCaptureFixture) -> None:
    model = packed("llama", "cuda")

    def reads_back(home: torch.nn.Module, given: Sequence[Tensor], out: Tensor) -> None:
        float(out.sum())

    hook = model.module.get_output_embeddings().register_forward_hook(reads_back)
    told = tokens_of(run(model, asked("llama")))
    hook.remove()
    expected = {one.request_id: one for one in asked("llama")}
    assert told == {n: greedy("llama", "cuda", one.prompt_ids, one.params.max_tokens) for n, one in expected.items()}
    assert not recordings(model)
    assert [record.message for record in caplog.records].count("decoding steps are not recorded") == 1
    assert tokens_of(run(packed("llama", "cuda"), asked("llama"))) == told  # the device is none the worse for it


def _serve_and_unload() -> int:
    """What was allocated before it was unloaded."""
    model = packed("llama", "cuda", blocks=512)
    run(model, asked("llama"))
    most = _allocated()
    assert recordings(model)
    model.unload()
    return most


def _allocated() -> int:
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()
