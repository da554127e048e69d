"""A Hugging Face directory, judged by ourselves before transformers sees it: what is there, and is it safe to read."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path

from mesh.checkpoint import strict_json
from mesh.checkpoint.errors import (
    BadShard,
    NotACheckpoint,
    PathEscapes,
    PickleRefused,
    TensorClash,
    UnsupportedModel,
)
from mesh.checkpoint.records import DTYPES
from mesh.checkpoint.shards import Shard, read_shard
from mesh.checkpoint.validate import is_safe_path

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
KEPT = (
    CONFIG, "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "*.model", "chat_template.jinja", "chat_template.json",
    "LICENSE*",
)  # fmt: skip
"""The small files that travel with a checkpoint, and nothing else: no code, no images, no weights."""
MAX_CONFIG_BYTES = 16 << 20
MAX_INDEX_BYTES = 256 << 20
MAX_KEPT_BYTES = 256 << 20  # the largest tokenizer.json in use is a tenth of it


@dataclass(frozen=True, slots=True)
class Source:
    """A directory that passed: real files inside it, headers checked, no name twice."""

    directory: Path
    config: Mapping[str, object]
    config_path: Path
    shards: tuple[Shard, ...]
    kept: Mapping[str, Path]  # name -> file

    @property
    def elements(self) -> int:
        """Numbers in all tensors."""
        return sum(prod(tensor.shape) for shard in self.shards for tensor in shard.tensors)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.bytes for shard in self.shards for tensor in shard.tensors)


def inspect(directory: Path) -> Source:
    """Looks at names, headers and config.json; maps no tensor. Raises the error that fits what is wrong."""
    if not directory.is_dir():
        raise NotACheckpoint(f"{directory} is no directory; give one that from_pretrained would load")
    try:
        return _inspect(directory)
    except OSError as error:
        raise NotACheckpoint(f"{directory} cannot be read: {error}") from error


def _inspect(directory: Path) -> Source:
    config_path = _file(directory, CONFIG)
    if config_path is None:
        raise NotACheckpoint(f"{directory} has no {CONFIG}; give a directory that from_pretrained would load")
    config = _object(config_path, MAX_CONFIG_BYTES, NotACheckpoint)
    _check_config(config, config_path)
    shards = tuple(read_shard(path) for path in _shard_paths(directory))
    _check_clashes(shards)
    return Source(directory, config, config_path, shards, _kept(directory))


def _check_config(config: Mapping[str, object], path: Path) -> None:
    if not isinstance(config.get("model_type"), str):
        raise UnsupportedModel(f"{path} names no model_type, so nothing tells which architecture it is")
    if config.get("quantization_config") is not None or config.get("compression_config") is not None:
        raise UnsupportedModel(f"{path} says the weights are quantized; import the unquantized checkpoint")
    for field in ("dtype", "torch_dtype"):
        dtype = config.get(field)
        if dtype is not None and (not isinstance(dtype, str) or dtype.removeprefix("torch.") not in DTYPES):
            raise UnsupportedModel(f"{path} has {field} {dtype!r}, which is no dtype")


def _shard_paths(directory: Path) -> Sequence[Path]:
    """The safetensors files, found the way from_pretrained finds them: one file, or those of the index."""
    single = _file(directory, WEIGHTS)
    if single is not None:
        return [single]
    index = _file(directory, INDEX)
    if index is None:
        raise _no_weights(directory)
    return _indexed(directory, index)


def _no_weights(directory: Path) -> NotACheckpoint | PickleRefused:
    names = sorted(path.name for path in directory.iterdir())
    pickles = [name for name in names if any(fnmatchcase(name, pattern) for pattern in PICKLES)]
    if pickles:
        return PickleRefused(
            f"{directory} has weights only as pickles ({pickles[0]}), which run code when read; "
            f"save the model again with safe_serialization to get {WEIGHTS}"
        )
    return NotACheckpoint(f"{directory} has neither {WEIGHTS} nor {INDEX}; is the download complete?")


def _indexed(directory: Path, index: Path) -> Sequence[Path]:
    weight_map = _object(index, MAX_INDEX_BYTES, BadShard).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadShard(f"{index} has no weight_map; download it again")
    paths: dict[str, Path] = {}
    for name in weight_map.values():
        if not isinstance(name, str) or not name.endswith(".safetensors"):
            raise BadShard(f"{index} names {name!r} as a shard, which is no safetensors file")
        if name not in paths:
            path = _file(directory, name)
            if path is None:
                raise BadShard(f"{directory} lacks {name!r}, a shard of its index; complete the download")
            paths[name] = path
    return [paths[name] for name in sorted(paths)]


def _check_clashes(shards: Sequence[Shard]) -> None:
    holder: dict[str, Path] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in holder:
                raise TensorClash(
                    f"tensor {tensor.name!r} is in both {holder[tensor.name]} and {shard.path}; "
                    "which one counts cannot be told, so save the checkpoint again"
                )
            holder[tensor.name] = shard.path


def _kept(directory: Path) -> Mapping[str, Path]:
    """The files to copy, by name."""
    kept: dict[str, Path] = {}
    for name in sorted(path.name for path in directory.iterdir()):
        if name.isascii() and any(fnmatchcase(name, pattern) for pattern in KEPT):
            path = _file(directory, name)
            if path is not None:
                _check_size(path, MAX_KEPT_BYTES, NotACheckpoint)
                kept[name] = path
    return kept


def _file(directory: Path, name: str) -> Path | None:
    """The regular file that `name` leads to, or None. Raises PathEscapes if that is outside the directory."""
    if not is_safe_path(name):
        raise PathEscapes(f"{directory} refers to {name!r}; only plain names inside the directory are followed")
    path = directory / name
    if not os.path.lexists(path):
        return None
    real = Path(os.path.realpath(path))  # unlike resolve(), no error on a loop of links
    if not any(real.is_relative_to(home) for home in _homes(Path(os.path.realpath(directory)))):
        raise PathEscapes(f"{path} is a link to {real}, outside the directory; copy the file there")
    return real if real.is_file() else None


def _homes(directory: Path) -> tuple[Path, ...]:
    """Where links may lead: the directory and, for a snapshot in the hub's cache, the blobs of that repository."""
    if directory.parent.name == "snapshots":
        return directory, directory.parent.parent / "blobs"
    return (directory,)


def _object(path: Path, limit: int, wrong: type[NotACheckpoint] | type[BadShard]) -> Mapping[str, object]:
    _check_size(path, limit, wrong)
    try:
        value = strict_json.loads(path.read_bytes())
    except ValueError as error:
        raise wrong(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise wrong(f"{path} is no JSON object")
    return value


def _check_size(path: Path, limit: int, wrong: type[NotACheckpoint] | type[BadShard]) -> None:
    size = path.stat().st_size
    if size > limit:
        raise wrong(f"{path} has {size} bytes; more than {limit} is no file of its kind")
