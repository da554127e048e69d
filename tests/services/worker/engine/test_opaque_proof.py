from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    PreTrainedConfig,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from services.worker.engine.errors import UnsupportedArchitecture
from services.worker.engine.footprint import Footprint, Growth
from services.worker.engine.opaque import OpaqueRunner
from services.worker.engine.opaque_proof import prove
from services.worker.engine.opaque_replica import OpaqueReplica
from services.worker.engine.opaque_state import sizes
from tests.services.worker.engine.on_device import greedy
from tests.services.worker.engine.opaque_families import body, fresh
from tests.services.worker.engine.tiny import VOCABULARY, prompt, request, run, tokens_of

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "cpmant",
        {"hidden_size": 64, "num_attention_heads": 4, "dim_head": 16, "dim_ff": 96, "num_hidden_layers": 2},
        "puts a prompt of its own before",
    ),
    # sees what comes after, too
    ("bert", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}, "go on"),
    ("xlnet", {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96}, "takes no cache"),
    ("openai-gpt", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}, "takes no cache"),
]


def test_a_model_that_only_a_fused_attention_gets_wrong_runs_in_plain_products() -> None:
    AttentionInterface.register("forgetful", _forgetful)
    AttentionMaskInterface.register("forgetful", sdpa_mask)
    model = fresh("doge")
    model.set_attn_implementation("forgetful")
    proof = prove(model)
    assert proof.attention == model.config._attn_implementation == "eager"
    another = OpaqueReplica("doge", fresh("doge"), 1 << 24, proof, eos_token_ids=())
    produced = tokens_of(run(another, [request("r", prompt(9), 12, on="doge")]))
    assert produced["r"] == greedy("doge", "cpu", prompt(9), 12)
    assert another.module.config._attn_implementation == "eager"


def _forgetful(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> Any:
    """Sees of what is cached nothing at all."""
    count = query.shape[2]
    mask = None if attention_mask is None else attention_mask[..., -count:]
    return sdpa_attention_forward(module, query, key[:, :, -count:], value[:, :, -count:], mask, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "settings", "why"), REFUSED)
def test_a_model_that_it_would_get_wrong_is_refused_with_the_reason(
    family: str, settings: dict[str, Any], why: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    config: PreTrainedConfig = CONFIG_MAPPING[family](**settings | {"vocab_size": VOCABULARY})
    config.initializer_range = 0.15
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()  # type: ignore[no-untyped-call]
    with pytest.raises(UnsupportedArchitecture, match=why):
        prove(model)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("bloom", Footprint(0, (Growth(2 * 2 * 64 * 4),))),
        ("rwkv", Footprint(2560)),
        ("gemma3n_text", Footprint(8, (Growth(2 * 2 * 16 * 4, 16), Growth(2 * 2 * 16 * 4)))),
    ],
)
def test_the_footprint_is_what_sequences_take(family: str, expected: Footprint) -> None:
    model, proof = body(family)
    assert proof.footprint == expected
    with torch.inference_mode():
        for length in (12, 40):
            runner = OpaqueRunner(model, proof.loose)
            _, held = runner.run(prompt(length), length, None)
            taken = sum(sizes(held).values())
            assert proof.footprint.bytes(length) * 0.93 <= taken <= proof.footprint.bytes(length)


def test_a_footprint_knows_the_longest_sequence_that_fits() -> None:
    windowed = Footprint(10, (Growth(4, 16), Growth(1)))
    assert windowed.bytes(3) == 10 + 12 + 3
    assert windowed.bytes(100) == 10 + 64 + 100
    assert [windowed.tokens_in(n) for n in (9, 10, 14, 15, 174)] == [0, 0, 0, 1, 100]
    assert Footprint(10).tokens_in(9) == 0
    assert Footprint(10).tokens_in(10) > 1 << 30


def test_sixteen_bit_models_agree_with_themselves_well_enough() -> None:
    for family in ("mamba2", "qwen3_next", "bloom"):
        prove(fresh(family).to(torch.bfloat16))  # type: ignore[arg-type]
