"""LoRA adapters of the sample models, as the PEFT library trains and saves them."""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from .samples import Spec, make


def save_adapter(spec: Spec, directory: Path, *, save_embeddings: bool | str = False, **changes: Any) -> Path:
    """What save_pretrained of a PEFT model writes; `changes` go into its LoraConfig. B is not zero, as if trained."""
    model = make(spec)
    config = LoraConfig(**{"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Conv1D, of tied targets
        adapted = get_peft_model(model, config)
        torch.manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter)
        adapted.save_pretrained(str(directory), save_embedding_layers=save_embeddings)
    return directory
