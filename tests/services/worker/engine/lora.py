"""LoRA adapters of the tiny models, and the oracle: transformers' generate on what PEFT makes of merging one."""

import functools
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from mesh.checkpoint.lora import recipe
from services.worker.engine.adapter import Adapter
from services.worker.engine.peft import make_adapter
from services.worker.engine.replica import Replica
from tests.services.worker.engine.tiny import random_model

ATTENTION = MappingProxyType({"target_modules": ["q_proj", "v_proj"]})


class Trained:
    """An adapter of a model, as if trained: what PEFT saves of it, and the model merged with it."""

    def __init__(self, base: PreTrainedModel, seed: int, changes: Mapping[str, Any]) -> None:
        config = LoraConfig(**{"r": 4, "lora_alpha": 16, "task_type": "CAUSAL_LM", **changes})
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as directory:
            warnings.simplefilter("ignore")  # of Conv1D
            adapted = get_peft_model(base, config)
            torch.manual_seed(seed)
            for name, parameter in adapted.named_parameters():
                if parameter.requires_grad:
                    scale = 0.1 if "lora_" in name else 0.02
                    parameter.data.add_(torch.randn_like(parameter) * scale)
            adapted.save_pretrained(directory)
            self.tensors: dict[str, Tensor] = load_file(Path(directory, "adapter_model.safetensors"))
            self.config = Path(directory, "adapter_config.json").read_bytes()
            self.merged: Any = adapted.merge_and_unload()
        self._greedy = functools.cache(self._generate)

    def greedy(self, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
        """What the merged model generates after `prompt`."""
        return self._greedy(prompt, count)

    def _generate(self, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            out = self.merged.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
        return tuple(out[0, len(prompt) :].tolist())

    def on(self, replica: Replica, name: str) -> Adapter:
        """Made for a replica's base."""
        return make_adapter(name, f"digest of {name}", replica.module, self.tensors, recipe(self.config))


@functools.cache
def _trained(family: str, seed: int, changes: tuple[tuple[str, Any], ...]) -> Trained:
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in changes}
    return Trained(random_model(family), seed, plain)


def trained(family: str, seed: int = 1, **changes: Any) -> Trained:
    """Made once; `changes` go into its LoraConfig."""
    hashable = {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}
    try:
        return _trained(family, seed, tuple(sorted(hashable.items())))
    except TypeError:  # a pattern
        return Trained(random_model(family), seed, changes)
