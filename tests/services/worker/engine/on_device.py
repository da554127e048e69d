"""The tiny models on any device torch knows, and their oracle there: what the host's tests say must hold on a card."""

import functools
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from services.worker.engine.model import assign, build, build_opaque, probe_kv
from services.worker.engine.opaque_proof import prove
from services.worker.engine.opaque_replica import OpaqueReplica
from services.worker.engine.packed_replica import PackedReplica
from tests.services.worker.engine import opaque_families
from tests.services.worker.engine.tiny import BLOCK_TOKENS, FAMILIES, config, random_model

NO_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_CARD])]


@functools.cache
def reference(family: str, device: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """transformers' own model of a packed or an opaque family, with the weights that it has everywhere."""
    model = random_model(family) if family in FAMILIES else opaque_families.fresh(family)
    return model.to(device, dtype)


def greedy(family: str, device: str, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
    """What transformers generates after `prompt` on that device. An opaque model may keep something of what it saw
    before, so each prompt gets a new one."""
    model = reference(family, device) if family in FAMILIES else _alone(family, device)
    ids = torch.tensor([prompt], device=device)
    generate: Any = model.generate
    with torch.inference_mode():
        out = generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return tuple(out[0, len(prompt) :].tolist())


def _alone(family: str, device: str) -> PreTrainedModel:
    """Attending as ours does: by fused kernels, transformers 5.17 lets Doge's prompts see what comes after."""
    model = opaque_families.fresh(family).to(device)
    if model.config._attn_implementation != _attention(family, device):
        model.set_attn_implementation(_attention(family, device))
    return model


@functools.cache
def _attention(family: str, device: str) -> str:
    return prove(opaque_families.fresh(family).to(device)).attention


def packed(
    family: str, device: str, *, blocks: int = 64, dtype: torch.dtype = torch.float32, **options: Any
) -> PackedReplica:
    """A replica of the family there, on the reference's own tensors; its KV memory is full of NaN at first."""
    module = build(config(family), dtype, device)
    assign(module, reference(family, device, dtype).state_dict())
    spec = probe_kv(module, BLOCK_TOKENS)
    made = PackedReplica(family, f"digest of {family}", module, blocks * spec.block_bytes, spec=spec, **options)
    made._runner.pool.buffer.fill_(0xFF)
    return made


def opaque(family: str, device: str) -> OpaqueReplica:
    """A replica of one of the families that run one sequence at a time."""
    module = build_opaque(opaque_families.config(family), torch.float32, device)
    assign(module, opaque_families.fresh(family).to(device).state_dict())
    return OpaqueReplica(family, module, 1 << 24, prove(module), eos_token_ids=())
