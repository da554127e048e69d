"""Checkpoints of quantized and otherwise odd tensors, as their tools write them: random bits of every dtype."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mesh.checkpoint.shards import SAFETENSORS_DTYPES

CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096,
    "quantization_config": {"quant_method": "made-up"},
}
SHAPES = ((), (0,), (3, 0, 2), (1,), (6, 4), (3, 5, 14))


def random_bits(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Any bits, NaNs among them; bools as torch stores them."""
    count = torch.Size(shape).numel() * dtype.itemsize
    bits = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), dtype=torch.uint8)
    return bits.view(dtype).reshape(shape)


def every_dtype() -> dict[str, torch.Tensor]:
    """A tensor of each dtype that safetensors has, in each of several shapes, over two layers."""
    torch.manual_seed(2)
    return {
        f"model.layers.{layer}.{name}.{index}": random_bits(shape, getattr(torch, name))
        for layer in range(2)
        for name in SAFETENSORS_DTYPES.values()
        for index, shape in enumerate(SHAPES)
        if shape or name != "float4_e2m1fn_x2"  # of which a scalar would be two numbers
    }


def gptq() -> dict[str, torch.Tensor]:
    """4-bit integers, eight in an int32, with scales and permutations, as GPTQ and AWQ tools write them."""
    torch.manual_seed(3)
    tensors = {"model.embed_tokens.weight": random_bits((32, 64), torch.float16)}
    for layer in range(2):
        tensors |= {
            f"model.layers.{layer}.self_attn.q_proj.qweight": random_bits((8, 64), torch.int32),
            f"model.layers.{layer}.self_attn.q_proj.qzeros": random_bits((4, 8), torch.int32),
            f"model.layers.{layer}.self_attn.q_proj.scales": random_bits((4, 64), torch.float16),
            f"model.layers.{layer}.self_attn.q_proj.g_idx": torch.arange(64, dtype=torch.int32),
            f"model.layers.{layer}.input_layernorm.weight": random_bits((64,), torch.float16),
        }
    return tensors | {"lm_head.weight": random_bits((32, 64), torch.float16)}


def experts(count: int) -> dict[str, torch.Tensor]:
    """fp8 with block scales, a tensor for each expert's matrix, as DeepSeek writes them; the first layer is dense."""
    torch.manual_seed(4)
    tensors = {"model.layers.0.mlp.up_proj.weight": random_bits((4, 8), torch.float8_e4m3fn)}
    for layer in (1, 2):
        tensors[f"model.layers.{layer}.mlp.gate.weight"] = random_bits((count, 8), torch.bfloat16)
        for expert in range(count):
            for matrix in ("gate_proj", "up_proj", "down_proj"):
                name = f"model.layers.{layer}.mlp.experts.{expert}.{matrix}"
                tensors[f"{name}.weight"] = random_bits((4, 8), torch.float8_e4m3fn)
                tensors[f"{name}.weight_scale_inv"] = random_bits((1, 1), torch.float32)
    return tensors


def save(directory: Path, tensors: Mapping[str, torch.Tensor], *, shards: int = 1, **changes: Any) -> Path:
    """A directory with these tensors, dealt to `shards` files; `changes` go into its config."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(dict(tensors), directory / "model.safetensors", metadata={"format": "pt"})
        return directory
    files = [f"model-{index + 1:05}-of-{shards:05}.safetensors" for index in range(shards)]
    weight_map = {name: files[index % shards] for index, name in enumerate(tensors)}
    for file in files:
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


def saved(directory: Path) -> dict[str, torch.Tensor]:
    """What the library itself reads from a directory."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        found |= load_file(file)
    return found


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """The same names, dtypes, shapes and bits."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        bits, others = (each.contiguous().reshape(-1).view(torch.uint8) for each in (found[name], tensor))
        assert torch.equal(bits, others), name
