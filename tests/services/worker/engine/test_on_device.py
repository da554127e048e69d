"""What an engine owes its callers on whatever device it runs: tokens, bits and blocks, on the host and on a card."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from mesh.facts import NumericsLevel
from services.worker.engine.batch import Limits
from services.worker.engine.costs import Costs
from services.worker.engine.errors import NumericsNotHeld
from services.worker.engine.host_tier import HostTier
from services.worker.engine.numerics import LEVELS, Numerics
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import EngineRequest
from tests.services.worker.engine.leaky import make_leaky
from tests.services.worker.engine.on_device import DEVICES, greedy, opaque, packed, reference
from tests.services.worker.engine.opaque_families import OPAQUE
from tests.services.worker.engine.test_engine import running
from tests.services.worker.engine.test_moving import hand_over, moved_over_engines, steps
from tests.services.worker.engine.tiny import FAMILIES, prompt, request, run, tokens_of

INVARIANT = [LEVELS[NumericsLevel.BATCH_INVARIANT], LEVELS[NumericsLevel.PATH_INVARIANT]]
LENGTHS = (5, 17, 40, 1)


def on_devices(families: Sequence[str]) -> list[Any]:
    """Each family on a card; and the first on the host, where other tests try them all."""
    return [(families[0], "cpu"), *(pytest.param(one, "cuda", marks=DEVICES[1].marks) for one in families)]


@pytest.mark.parametrize(("family", "device"), on_devices(list(FAMILIES)))
def test_staggered_batches_give_the_tokens_of_transformers_there(family: str, device: str) -> None:
    model = packed(family, device, limits=Limits(batch_tokens=24))
    prompts = {f"r{n}": prompt(n) for n in LENGTHS}
    produced = run(model, [request(name, ids, on=family) for name, ids in prompts.items()], steps_between=3)
    assert tokens_of(produced) == {name: greedy(family, device, ids, 24) for name, ids in prompts.items()}
    assert model.stats().free_blocks == model.stats().total_blocks


@pytest.mark.parametrize(("family", "device"), on_devices(list(OPAQUE)))
def test_a_model_that_runs_alone_gives_the_tokens_of_transformers_there(family: str, device: str) -> None:
    prompts = {f"r{n}": prompt(n) for n in (20, 9)}
    produced = run(opaque(family, device), [request(name, ids, 12, on=family) for name, ids in prompts.items()])
    assert tokens_of(produced) == {name: greedy(family, device, ids, 12) for name, ids in prompts.items()}


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_gives_logits_near_those_of_full_precision(device: str) -> None:
    model = packed("llama", device, dtype=torch.bfloat16)
    ids = prompt(40)
    with torch.inference_mode():
        model.add(request("r", ids))
        plan = model._next.ready()
        ours = model._runner.run(plan.spans)[-1].float()
        theirs = reference("llama", device)(torch.tensor([ids], device=device)).logits[0, -1]
    assert float((ours - theirs).norm() / theirs.norm()) < 3e-2


@pytest.mark.parametrize("numerics", INVARIANT, ids=lambda numerics: numerics.level)
@pytest.mark.parametrize("device", DEVICES)
def test_an_invariant_level_is_proven_there_in_both_precisions(numerics: Numerics, device: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        fingerprints = {_proven(packed("llama", device, numerics=numerics, dtype=dtype)) for _ in range(2)}
        assert len(fingerprints) == 1
        assert fingerprints != {""}


@pytest.mark.parametrize("numerics", INVARIANT, ids=lambda numerics: numerics.level)
@pytest.mark.parametrize("device", DEVICES)
def test_rows_that_depend_on_each_other_are_found_out_there(numerics: Numerics, device: str) -> None:
    model = packed("llama", device, numerics=numerics)
    make_leaky(model)
    with pytest.raises(NumericsNotHeld):
        _proven(model)


@pytest.mark.parametrize("numerics", INVARIANT, ids=lambda numerics: numerics.level)
@pytest.mark.parametrize("device", DEVICES)
def test_drawn_tokens_do_not_tell_who_else_ran(numerics: Numerics, device: str) -> None:
    asked = [request(f"r{n}", prompt(n), temperature=0.8, top_p=0.9, seed=n) for n in LENGTHS]
    alone = {one.request_id: tokens_of(_run_anew(device, [one], numerics))[one.request_id] for one in asked}
    others = [request(f"other {n}", prompt(n, seed=2), 40) for n in (3, 50)]
    together = tokens_of(_run_anew(device, [*others, *asked], numerics, steps_between=2))
    assert {name: together[name] for name in alone} == alone
    assert len(set(alone.values())) == len(LENGTHS)


@pytest.mark.parametrize("device", DEVICES)
def test_every_way_to_draw_is_the_same_again(device: str) -> None:
    ways: Mapping[str, Mapping[str, Any]] = {
        "plain": {"temperature": 1.0},
        "top_k": {"temperature": 0.9, "top_k": 5},
        "min_p": {"temperature": 0.9, "min_p": 0.1},
        "penalties": {"temperature": 0.7, "repetition_penalty": 1.3, "presence_penalty": 0.5},
        "likely": {"temperature": 0.7, "top_logprobs": 3},
    }
    asked = [request(name, prompt(12), seed=7, **params) for name, params in ways.items()]
    first, second = (run(packed("llama", device), asked) for _ in range(2))
    assert first == second
    assert len(set(tokens_of(first).values())) >= 3


@pytest.mark.parametrize("device", DEVICES)
def test_a_prefix_is_found_and_a_sequence_that_gave_way_goes_on(device: str) -> None:
    model = packed("llama", device, blocks=8, tier=HostTier(1 << 22), costs=Costs(token_s=1e6))
    asked = [request(f"r{n}", prompt(n), 20) for n in (17, 30, 9)]
    expected = {one.request_id: greedy("llama", device, one.prompt_ids, 20) for one in asked}
    assert tokens_of(run(model, asked)) == expected
    assert model.stats().preemptions
    second = prompt(17) + expected["r17"] + prompt(3)
    assert tokens_of(run(model, [request("turn 2", second, 4)])) == {"turn 2": greedy("llama", device, second, 4)}
    assert model.stats().prefix_tokens


@pytest.mark.parametrize(("family", "device"), on_devices(["llama", "gemma3_text", "deepseek_v3"]))
def test_a_sequence_moves_between_replicas_there_with_the_same_kv_and_tokens(family: str, device: str) -> None:
    source, target = packed(family, device), packed(family, device)
    source.add(request("moved", prompt(17), on=family))
    target.add(request("busy", prompt(10), on=family))
    produced = steps(source, 9) + steps(target, 1)
    before = _kv(source, "moved")
    hand_over(source, target, "moved")
    assert _kv(target, "moved")[: len(before)] == before
    produced += run(source, []) + run(target, [])
    assert tokens_of(produced) == {n: greedy(family, device, prompt(k), 24) for n, k in (("moved", 17), ("busy", 10))}


@pytest.mark.parametrize("device", DEVICES)
def test_a_running_engine_gives_blocks_to_another_while_both_serve(device: str) -> None:
    with running(packed("llama", device)) as (source, left), running(packed("llama", device)) as (target, right):
        source.submit(request("moved", prompt(17), 100))
        target.submit(request("busy", prompt(10), 60))
        left.wait("moved", tokens=20)
        moved_over_engines(source, target, "moved")
        left.wait("moved")
        told = tokens_of(left.of("moved"))["moved"] + tokens_of(right.wait("moved on"))["moved on"]
        assert told == greedy("llama", device, prompt(17), 100)
        assert tokens_of(right.wait("busy")) == {"busy": greedy("llama", device, prompt(10), 60)}


def _proven(model: PackedReplica) -> str:
    with torch.inference_mode():
        model.prove()
    return model.stats().fingerprint


def _run_anew(device: str, asked: Sequence[EngineRequest], numerics: Numerics, steps_between: int = 0) -> list[Any]:
    return run(packed("llama", device, blocks=128, numerics=numerics), asked, steps_between)


def _kv(model: PackedReplica, name: str) -> list[bytes]:
    """Each full block's bytes, block by block."""
    state = model.departures.describe(name)
    layers = [model.departures.export_kv(name, layer, 0, state.full_blocks) for layer in range(state.layers)]
    return [row.cpu().numpy().tobytes() for row in torch.cat(layers, 1)]
