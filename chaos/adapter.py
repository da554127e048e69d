"""A random LoRA adapter, as PEFT would have saved it."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RANK, ALPHA, SEED, SPREAD = 4, 32, 1, 0.2
TARGETS = ("q_proj", "v_proj")


def write_adapter(base: Path, directory: Path) -> Path:
    """Of the Hugging Face model in `base`: one that changes what it says."""
    generator = torch.Generator().manual_seed(SEED)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in load_file(base / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if module.endswith(TARGETS):
            rows, columns = weight.shape
            path = f"base_model.model.{module}"
            tensors[f"{path}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator) * SPREAD
            tensors[f"{path}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator) * SPREAD
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": TARGETS,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory
