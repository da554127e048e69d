"""Models to serve: Hugging Face directories, their checkpoints, and what stock transformers says of them."""

import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from demo.models import write_tiny
from mesh.checkpoint.convert import import_directory

TUNED = "model.layers.0.mlp.down_proj.weight"
BIG = "big"
FIRST_EDITION = 1000  # their seeds, above those of versions
BIG_HIDDEN = 768  # two layers of it: about 55 MB of float32, and steps slow enough to interrupt
PACKED = ("llama", "qwen2", "opt", "gpt2", "gemma", "mixtral")
OPAQUE = ("bloom", "lfm2", "mamba2")
KINDS = (*PACKED, *OPAQUE)


class Library:
    """Sources and checkpoints below `root`, each made when first asked for, in this process: a store's own import
    takes seconds to start. Names are those of demo.models.KINDS, and BIG; "llama@2" is llama with other weights,
    "llama+" is llama with another first layer."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sources: dict[str, Path] = {}
        self._digests: dict[str, str] = {}
        self._editions = 0

    def source(self, name: str) -> Path:
        """The Hugging Face directory."""
        if name not in self._sources:
            if name.endswith("+"):
                return self._tuned(name)
            plain, _, version = name.partition("@")
            self._sources[name] = _write(plain, self._root / "sources" / name, int(version or 0))
        return self._sources[name]

    def _tuned(self, name: str) -> Path:
        directory = self._sources[name] = self._root / "sources" / name
        shutil.copytree(self.source(name.removesuffix("+")), directory)
        weights = load_file(directory / "model.safetensors")
        weights[TUNED] = weights[TUNED].flip(0).contiguous()
        save_file(weights, directory / "model.safetensors", {"format": "pt"})
        return directory

    def edition(self, name: str, directory: Path) -> Path:
        """A source with weights of its own, written anew, for a test that wants what no store has seen a unit of."""
        self._editions += 1
        return _write(name, directory, FIRST_EDITION + self._editions)

    def digest(self, name: str) -> str:
        """The checkpoint's."""
        if name not in self._digests:
            manifest = import_directory(self.source(name), self._root / "checkpoints", on_progress=lambda _: None)
            self._digests[name] = manifest.digest
        return self._digests[name]

    def put(self, store_dir: Path, names: Sequence[str]) -> None:
        """Copies checkpoints to where a store that starts later will find them."""
        for name in names:
            digest = self.digest(name)
            shutil.copytree(self._root / "checkpoints" / digest, store_dir / digest)

    @cache  # noqa: B019  there is one library a run
    def reference(self, name: str, prompt: tuple[int, ...], tokens: int) -> tuple[int, ...]:
        """What from_pretrained(...).generate says, greedily, in float32."""
        auto: Any = AutoModelForCausalLM
        model = auto.from_pretrained(self.source(name), dtype=torch.float32)
        with torch.inference_mode():
            ids = model.generate(torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False)
        return tuple(ids[0, len(prompt) :].tolist())


def _write(kind: str, directory: Path, seed: int) -> Path:
    """BIG, or one of demo.models.KINDS."""
    return write_tiny("llama" if kind == BIG else kind, directory, hidden=BIG_HIDDEN if kind == BIG else 64, seed=seed)


def prompt_ids(length: int) -> tuple[int, ...]:
    """Token ids that every model here knows, none of them special."""
    return tuple(100 + (index * index * 7 + index) % 400 for index in range(length))
