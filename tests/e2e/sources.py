"""Hugging Face directories to deploy: a tiny model of each kind, a larger one, and what stock transformers says of them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from demo.models import write_tiny

BIG = "big"
BIG_HIDDEN = 768  # two layers of it: about 55 MB of float32, and steps slow enough to interrupt
PARITY_KINDS = ("llama", "qwen2", "opt", "gpt2", "gemma", "mixtral")


class Sources:
    """Directories below `root`, each written when first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._written: dict[str, Path] = {}

    def of(self, name: str) -> Path:
        """The directory of a kind of demo.models.KINDS, or of BIG. Takes a second; the bytes are always the same."""
        if name not in self._written:
            kind, sizes = ("llama", {"hidden": BIG_HIDDEN}) if name == BIG else (name, {})
            self._written[name] = write_tiny(kind, self._root / name, **sizes)
        return self._written[name]

    @cache  # noqa: B019  lives as long as the run
    def reference(self, name: str, prompt: tuple[int, ...], tokens: int) -> tuple[int, ...]:
        """What from_pretrained(...).generate says, greedily, in float32."""
        torch.set_num_threads(1)
        auto: Any = AutoModelForCausalLM
        model = auto.from_pretrained(self.of(name), dtype=torch.float32)
        with torch.inference_mode():
            ids = model.generate(torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False)
        return tuple(ids[0, len(prompt) :].tolist())


def prompt_ids(length: int, seed: int = 0) -> tuple[int, ...]:
    """Token ids that every model here knows, none of them special; no two seeds share a first block."""
    return tuple(100 + (seed * 31 + index * index * 7 + index) % 400 for index in range(length))


def write_sharded(directory: Path, source: Path) -> Sequence[Path]:
    """Saves the model of `source` again as several shards with an index; returns the shards."""
    auto: Any = AutoModelForCausalLM
    auto.from_pretrained(source).save_pretrained(directory, max_shard_size="200KB")
    return sorted(directory.glob("*.safetensors"))
