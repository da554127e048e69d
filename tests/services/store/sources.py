"""Directories to import: a real tiny model, and one for each thing that can be wrong with one."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

CONFIG: Mapping[str, object] = MappingProxyType(
    {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
)


def save_llama(directory: Path, *, vocabulary: int = 64) -> Path:
    """What save_pretrained writes of a tiny Llama, in several shards, with a small file beside it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig.from_dict({**CONFIG, "vocab_size": vocabulary})
    LlamaForCausalLM(config).save_pretrained(directory, max_shard_size=128 * vocabulary)
    (directory / "tokenizer.json").write_text("{}")
    return directory


def save_deep(directory: Path) -> Path:
    """Two layers of 75 MB each: the first is in the journal of an import when 60 % are written."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_dict({**CONFIG, "hidden_size": 2048, "intermediate_size": 4096})
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    return directory


def safetensors(path: Path, names: tuple[str, ...]) -> None:
    """A file with one float each."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * index, 4 * index + 4]}
        for index, name in enumerate(names)
    }
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(4 * len(names)))


def _config(directory: Path, **changes: object) -> None:
    (directory / "config.json").write_text(json.dumps({**CONFIG, **changes}))


def _index(directory: Path, weight_map: Mapping[str, str]) -> None:
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def empty(directory: Path) -> None:
    """Nothing at all."""


def pickles(directory: Path) -> None:
    """Weights that run code when read."""
    _config(directory)
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")


def truncated(directory: Path) -> None:
    """A download that stopped."""
    _config(directory)
    safetensors(directory / "model.safetensors", ("a", "b"))
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[:-3])


def bit_flipped(directory: Path) -> None:
    """A header that is no longer what was written."""
    _config(directory)
    safetensors(directory / "model.safetensors", ("a", "b"))
    content = bytearray((directory / "model.safetensors").read_bytes())
    content[7] ^= 0x40
    (directory / "model.safetensors").write_bytes(content)


def clashing(directory: Path) -> None:
    """One name, two tensors."""
    _config(directory)
    safetensors(directory / "one.safetensors", ("a", "same"))
    safetensors(directory / "two.safetensors", ("b", "same"))
    _index(directory, {"a": "one.safetensors", "b": "two.safetensors", "same": "one.safetensors"})


def escaping(directory: Path) -> None:
    """An index that points at somebody else's file."""
    _config(directory)
    safetensors(directory.parent / "other.safetensors", ("a",))
    _index(directory, {"a": "../other.safetensors"})


def linked_out(directory: Path) -> None:
    """A link that points at somebody else's file."""
    _config(directory)
    safetensors(directory.parent / "other.safetensors", ("a",))
    (directory / "model.safetensors").symlink_to(directory.parent / "other.safetensors")


def nameless(directory: Path) -> None:
    """A config that names no architecture."""
    (directory / "config.json").write_text("{}")
    safetensors(directory / "model.safetensors", ("a",))


def of_another_model(directory: Path) -> None:
    """Tensors that the architecture does not have."""
    _config(directory)
    safetensors(directory / "model.safetensors", ("a", "b"))


BAD: Mapping[str, tuple[Callable[[Path], None], ...]] = MappingProxyType(
    {
        "NOT_A_CHECKPOINT": (empty,),
        "PICKLE_REFUSED": (pickles,),
        "BAD_SHARD": (truncated, bit_flipped),
        "TENSOR_CLASH": (clashing,),
        "PATH_ESCAPES": (escaping, linked_out),
        "UNSUPPORTED_MODEL": (nameless,),
        "SHARD_MISMATCH": (of_another_model,),
    }
)
"""The reason that the store should give, and directories that should make it give it."""
