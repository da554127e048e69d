"""A batch of the base's requests and several adapters' gives each the tokens of its own merged model."""

import queue
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from mesh.checkpoint.errors import UnsupportedModel
from mesh.checkpoint.lora import recipe
from mesh.facts import NumericsLevel
from mesh.requests import FinishReason, Pooling
from services.worker.engine.batch import Limits
from services.worker.engine.engine import Engine
from services.worker.engine.errors import DuplicateReplica, LayoutMismatch, UnknownReplica, UnsupportedAdapter
from services.worker.engine.model import probe_kv
from services.worker.engine.numerics import LEVELS, Numerics
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.packing import PackBudget
from services.worker.engine.peft import make_adapter
from services.worker.engine.request import EngineRequest, TokenStep
from tests.services.worker.engine.lora import ATTENTION, Trained, trained
from tests.services.worker.engine.test_moving import hand_over, steps
from tests.services.worker.engine.test_numerics import recording
from tests.services.worker.engine.tiny import BLOCK_TOKENS, body, greedy, prompt, replica, request, run, tokens_of

WAIT_S = 60.0
TARGETS: dict[str, dict[str, Any]] = {
    "llama": {"target_modules": "all-linear"},
    "gpt2": {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    "opt": {"target_modules": ["q_proj", "fc1", "project_in", "project_out"]},
    "gemma3_text": {"target_modules": ["q_proj", "down_proj"]},
    "mixtral": {"target_modules": ["q_proj", "o_proj"]},
    "deepseek_v3": {"target_modules": ["q_a_proj", "kv_b_proj", "o_proj"]},
}


def together(model: PackedReplica, family: str, adapters: dict[str, Trained]) -> None:
    """Runs the base and all adapters in one staggered batch, and compares each with its own oracle."""
    for name, one in adapters.items():
        model.add_adapter(one.on(model, name))
    asked = {(name, n): prompt(n) for n in (5, 17, 30) for name in (family, *adapters)}
    requests = [request(f"{name}/{n}", ids, 16, on=name) for (name, n), ids in asked.items()]
    produced = tokens_of(run(model, requests, steps_between=2))
    for (name, n), ids in asked.items():
        wanted = adapters[name].greedy(ids, 16) if name in adapters else greedy(family, ids, 16)
        assert produced[f"{name}/{n}"] == wanted, (name, n)


@pytest.mark.parametrize("family", TARGETS)
def test_a_mixed_batch_gives_each_the_tokens_of_its_merged_model(family: str) -> None:
    adapters = {f"a{seed}": trained(family, seed, **TARGETS[family]) for seed in (1, 2)}
    for one in adapters.values():
        assert one.greedy(prompt(17), 16) != greedy(family, prompt(17), 16)
    together(replica(family, blocks=128, limits=Limits(batch_tokens=24)), family, adapters)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"use_dora": True, "target_modules": ["q_proj", "down_proj"]}),
        ("qwen2", {"use_dora": True, "target_modules": ["q_proj", "embed_tokens"]}),
        ("qwen2", {"bias": "all", "target_modules": ["q_proj"]}),
        ("qwen2", {"bias": "lora_only", "lora_bias": True, "target_modules": ["q_proj", "v_proj"]}),
        ("gpt2", {"bias": "all", "use_dora": True, "target_modules": ["c_attn"], "fan_in_fan_out": True}),
        ("llama", {"use_rslora": True, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {r".*\.1\.mlp\.up_proj": 64},
                   "target_modules": ["q_proj", "up_proj"]}),
        ("llama", {"target_modules": ["embed_tokens", "lm_head"]}),
        ("gemma3_text", {"target_modules": ["embed_tokens", "v_proj"]}),
        ("llama", {"modules_to_save": ["embed_tokens", "lm_head", "norm"], "target_modules": ["v_proj"]}),
    ],
)  # fmt: skip
def test_what_else_peft_knows_is_as_merged(family: str, changes: dict[str, Any]) -> None:
    one = trained(family, **changes)
    assert one.greedy(prompt(17), 16) != greedy(family, prompt(17), 16)
    together(replica(family, blocks=128), family, {"a": one})


def test_adapters_of_different_kinds_and_ranks_share_a_batch() -> None:
    adapters = {
        "thin": trained("llama", 1, r=2, target_modules=["q_proj"]),
        "wide": trained("llama", 2, r=16, target_modules=["q_proj", "lm_head"]),
        "dora": trained("llama", 3, use_dora=True, target_modules=["q_proj", "down_proj"]),
    }
    together(replica("llama", blocks=128, limits=Limits(batch_tokens=32)), "llama", adapters)


def test_kv_is_shared_within_an_adapter_and_with_nobody_else() -> None:
    one, model = trained("llama", 1, target_modules="all-linear"), replica()
    model.add_adapter(one.on(model, "a"))
    ids = prompt(40)
    for name, found in (("llama", 0), ("a", 0), ("a", 32), ("llama", 64)):
        wanted = one.greedy(ids, 8) if name == "a" else greedy("llama", ids, 8)
        assert tokens_of(run(model, [request("r", ids, 8, on=name)])) == {"r": wanted}
        assert model.stats().prefix_tokens == found
    model.remove_adapter("a")
    model.add_adapter(replace(one.on(model, "a"), digest="another"))
    run(model, [request("r", ids, 8, on="a")])
    assert model.stats().prefix_tokens == 64


def test_a_preempted_request_of_an_adapter_goes_on_where_it_was() -> None:
    one, model = trained("llama", 1, target_modules="all-linear"), replica(blocks=12, limits=Limits(batch_tokens=24))
    model.add_adapter(one.on(model, "a"))
    asked = {name: prompt(int(name[1:])) for name in ("a9", "b10", "a11", "b17")}
    requests = [request(name, ids, on="a" if name[0] == "a" else "llama") for name, ids in asked.items()]
    produced = tokens_of(run(model, requests))
    assert model.stats().preemptions > 0
    for name, ids in asked.items():
        assert produced[name] == (one.greedy(ids, 24) if name[0] == "a" else greedy("llama", ids, 24))


def test_removing_one_adapter_ends_its_requests_and_leaves_the_others_as_they_were() -> None:
    model, going, staying = (
        replica(),
        trained("llama", 1, **ATTENTION),
        trained("llama", 2, target_modules="all-linear"),
    )
    model.add_adapter(going.on(model, "going"))
    model.add_adapter(staying.on(model, "staying"))
    names = ("going", "staying", "llama")
    produced = []
    with torch.inference_mode():
        for name in names:
            model.add(request(name, prompt(9), 12, on=name))
        for _ in range(4):
            produced += model.step()
        assert {name: model.stats(name).running for name in names} == dict.fromkeys(names, 1)
        (ended,) = model.remove_adapter("going")
        assert (ended.request_id, ended.finish) == ("going", FinishReason.ERROR)
        while model.has_work:
            produced += model.step()
    tokens = tokens_of(produced)
    assert tokens["staying"] == staying.greedy(prompt(9), 12)
    assert tokens["llama"] == greedy("llama", prompt(9), 12)
    assert model.stats().free_blocks == model.stats().total_blocks
    model.remove_adapter("staying")
    assert not any(home._forward_hooks for home in model.module.modules())


def logits_of(numerics: Numerics, requests: list[EngineRequest]) -> dict[tuple[str, int], bytes]:
    """Every row that a token was drawn from, of a base with two adapters on it."""
    model = recording("llama", numerics)
    for seed, name in enumerate("ab", 1):
        model.add_adapter(trained("llama", seed, target_modules=["q_proj", "down_proj", "lm_head"]).on(model, name))
    run(model, requests, steps_between=2)
    return dict(model.rows)


@pytest.mark.parametrize("level", NumericsLevel)
def test_an_adapters_bits_depend_on_no_other_row_at_the_invariant_levels(level: NumericsLevel) -> None:
    numerics = replace(LEVELS[level], chunk_tokens=16) if level is NumericsLevel.BATCH_INVARIANT else LEVELS[level]
    mine = [request(f"a{n}", prompt(n), 12, on="a") for n in (5, 33)]
    others = [
        request("b9", prompt(9), 24, on="b"),
        request("base", prompt(20), 24),
        request("b3", prompt(3), 9, on="b"),
    ]
    alone = {place: row for one in mine for place, row in logits_of(numerics, [one]).items()}
    batched = logits_of(numerics, [others[0], mine[0], others[1], mine[1], others[2]])
    assert ({place: batched[place] for place in alone} == alone) is (level is not NumericsLevel.FAST)
    assert numerics.tile == 0 or len(alone) == 24


def test_packed_weights_and_drafts_give_adapters_the_same_tokens() -> None:
    module, one = body("llama"), trained("llama", 1, target_modules="all-linear")
    spec, budget = probe_kv(module, BLOCK_TOKENS), PackBudget(64 << 20)
    limits = Limits(batch_tokens=24, draft_tokens=3)
    model = PackedReplica("llama", "d", module, 64 * spec.block_bytes, spec=spec, limits=limits, packing=budget)
    model.add_adapter(one.on(model, "a"))
    asked = {name: prompt(n) for name, n in (("a1", 17), ("b1", 9), ("a2", 30))}
    requests = [request(name, ids, 40, on="a" if name[0] == "a" else "llama") for name, ids in asked.items()]
    produced = tokens_of(run(model, requests, steps_between=2))
    assert budget.left_bytes < 64 << 20
    for name, ids in asked.items():
        assert produced[name] == (one.greedy(ids, 40) if name[0] == "a" else greedy("llama", ids, 40))
    model.add_adapter(one.on(model, "late"))  # made of a base that is packed
    assert tokens_of(run(model, [request("r", prompt(9), 12, on="late")]))["r"] == one.greedy(prompt(9), 12)


def test_texts_are_embedded_as_the_merged_model_would() -> None:
    model, one = replica(), trained("llama", 1, target_modules=["q_proj", "down_proj", "lm_head"])
    model.add_adapter(one.on(model, "a"))
    inputs = [prompt(5), prompt(17)]
    with torch.inference_mode():
        mine, base = (model.embed(name, inputs, Pooling.MEAN) for name in ("a", "llama"))
        hidden = [one.merged.model(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in inputs]
    wanted = torch.stack(hidden)
    torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(base, wanted, rtol=1e-2, atol=1e-2)


def test_an_adapters_sequence_moves_to_a_replica_with_the_same_adapter_and_to_no_other() -> None:
    one = trained("llama", 1, target_modules="all-linear")
    source, target, bare = replica(), replica(), replica()
    for model in (source, target):
        model.add_adapter(one.on(model, "a"))
    source.add(request("r", prompt(17), on="a"))
    target.add(request("busy", prompt(10)))
    produced = steps(source, 9) + steps(target, 1)
    source.departures.pause("r")
    with pytest.raises(LayoutMismatch):
        bare.arrivals.begin(source.departures.describe("r"))
    hand_over(source, target, "r")
    produced += run(target, [])
    assert tokens_of(produced) == {"r": one.greedy(prompt(17), 24), "busy": greedy("llama", prompt(10), 24)}


def test_a_module_that_the_model_goes_around_is_not_passed_over_in_silence() -> None:
    model = replica()
    adapter = trained("llama", 1, **ATTENTION).on(model, "a")
    attention = model.module.model.layers[0].self_attn
    model.add_adapter(adapter)
    attention.q_proj = torch.nn.Linear(64, 64, bias=False)  # where the hooked one was
    with pytest.raises(UnsupportedAdapter, match=r"layers\.0\.self_attn\.q_proj"):
        run(model, [request("r", prompt(9), 4, on="a")])


def test_an_adapter_that_cannot_be_applied_to_rows_alone_is_refused_by_name() -> None:
    model, one = replica("qwen3_moe"), trained("qwen3_moe", 1, **ATTENTION)
    base = model.module
    down = next(tensor for name, tensor in one.tensors.items() if "lora_A" in name)
    wanted = recipe(one.config)
    for path in ("model.layers.0.mlp.experts", "model.layers.0.self_attn.q_norm", "model.nothing"):
        tensors = {f"base_model.model.{path}.lora_A.weight": down, f"base_model.model.{path}.lora_B.weight": down.t()}
        with pytest.raises((UnsupportedAdapter, UnsupportedModel), match=path.replace(".", r"\.")):
            make_adapter("a", "d", base, tensors, wanted)
    head_norm = {"base_model.model.model.layers.0.self_attn.q_norm.weight": torch.ones(16)}
    with pytest.raises(UnsupportedAdapter, match="q_norm"):
        make_adapter("a", "d", base, head_norm, wanted)


def put_in(produced: "queue.Queue[TokenStep]", steps: list[TokenStep]) -> None:
    """The engine's callback."""
    for step in steps:
        produced.put(step)


def test_the_engine_takes_and_gives_up_adapters_while_it_runs() -> None:
    produced: queue.Queue[TokenStep] = queue.Queue()
    engine, model = Engine(partial(put_in, produced)), replica(blocks=256)
    one = trained("llama", 1, target_modules="all-linear")
    adapter = one.on(model, "a")
    engine.start()
    engine.add_replica(model)
    engine.submit(request("base", prompt(9), 400))
    engine.add_adapter("llama", adapter).result(WAIT_S)
    with pytest.raises(DuplicateReplica):
        engine.add_adapter("llama", adapter)
    engine.submit(request("adapted", prompt(9), 16, on="a"))
    steps: list[TokenStep] = []
    while not steps or steps[-1].finish is None:
        step = produced.get(timeout=WAIT_S)
        steps += [step] if step.request_id == "adapted" else []
    assert tokens_of(steps) == {"adapted": one.greedy(prompt(9), 16)}
    engine.remove_adapter("a").result(WAIT_S)
    with pytest.raises(UnknownReplica):
        engine.submit(request("late", prompt(9), on="a"))
    engine.remove_replica("llama").result(WAIT_S)
    with pytest.raises(UnknownReplica):
        engine.add_adapter("llama", adapter)
    engine.close()
