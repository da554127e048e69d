"""A Hugging Face checkpoint, judged by ourselves before transformers sees it: what is there, is it safe to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

from mesh.checkpoint import strict_json
from mesh.checkpoint.errors import (
    BadShard,
    CheckpointError,
    NotACheckpoint,
    PickleRefused,
    TensorClash,
    UnsupportedModel,
)
from mesh.checkpoint.origin import Origin, place_of, read_range
from mesh.checkpoint.records import DTYPES
from mesh.checkpoint.shards import Shard, read_shard

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
    """An origin that passed: its files are there, headers checked, no name twice."""

    origin: Origin
    config: Mapping[str, object]
    config_json: bytes
    shards: tuple[Shard, ...]
    kept: tuple[str, ...]  # names of the small files that travel along

    @property
    def config_path(self) -> str:
        """Where config.json lies, for people."""
        return place_of(self.origin, CONFIG)

    @property
    def elements(self) -> int:
        """Numbers in all tensors."""
        return sum(prod(tensor.shape) for shard in self.shards for tensor in shard.tensors)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.bytes for shard in self.shards for tensor in shard.tensors)


def inspect(origin: Origin) -> Source:
    """Looks at names, headers and config.json; reads no tensor. Raises the error that fits what is wrong."""
    config_path = place_of(origin, CONFIG)
    if origin.size(CONFIG) is None:
        raise NotACheckpoint(f"{origin.url} has no {CONFIG}; give a directory that from_pretrained would load")
    config_json = read_small(origin, CONFIG, MAX_CONFIG_BYTES, NotACheckpoint)
    config = _object(config_json, config_path, NotACheckpoint)
    _check_config(config, config_path)
    shards = tuple(read_shard(origin, name) for name in _shard_names(origin))
    _check_clashes(origin, shards)
    return Source(origin, config, config_json, shards, _kept(origin))


def read_small(origin: Origin, name: str, limit: int, wrong: type[CheckpointError]) -> bytes:
    """All of a file that is there. Raises `wrong` if it has more than `limit` bytes."""
    return read_range(origin, name, 0, _checked_size(origin, name, limit, wrong))


def _check_config(config: Mapping[str, object], path: str) -> None:
    if not isinstance(config.get("model_type"), str):
        raise UnsupportedModel(f"{path} names no model_type, so nothing tells which architecture it is")
    if config.get("quantization_config") is not None or config.get("compression_config") is not None:
        raise UnsupportedModel(f"{path} says the weights are quantized; import the unquantized checkpoint")
    for field in ("dtype", "torch_dtype"):
        dtype = config.get(field)
        if dtype is not None and (not isinstance(dtype, str) or dtype.removeprefix("torch.") not in DTYPES):
            raise UnsupportedModel(f"{path} has {field} {dtype!r}, which is no dtype")


def _shard_names(origin: Origin) -> Sequence[str]:
    """The safetensors files, found the way from_pretrained finds them: one file, or those of the index."""
    if origin.size(WEIGHTS) is not None:
        return [WEIGHTS]
    if origin.size(INDEX) is None:
        raise _no_weights(origin)
    return _indexed(origin)


def _no_weights(origin: Origin) -> NotACheckpoint | PickleRefused:
    pickles = [name for name in origin.names() if any(fnmatchcase(name, pattern) for pattern in PICKLES)]
    if pickles:
        return PickleRefused(
            f"{origin.url} has weights only as pickles ({pickles[0]}), which run code when read; "
            f"save the model again with safe_serialization to get {WEIGHTS}"
        )
    return NotACheckpoint(f"{origin.url} has neither {WEIGHTS} nor {INDEX}; is the download complete?")


def _indexed(origin: Origin) -> Sequence[str]:
    index = place_of(origin, INDEX)
    data = read_small(origin, INDEX, MAX_INDEX_BYTES, BadShard)
    weight_map = _object(data, index, BadShard).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadShard(f"{index} has no weight_map; download it again")
    names: set[str] = set()
    for name in weight_map.values():
        if not isinstance(name, str) or not name.endswith(".safetensors"):
            raise BadShard(f"{index} names {name!r} as a shard, which is no safetensors file")
        if name not in names and origin.size(name) is None:
            raise BadShard(f"{origin.url} lacks {name!r}, a shard of its index; complete the download")
        names.add(name)
    return sorted(names)


def _check_clashes(origin: Origin, shards: Sequence[Shard]) -> None:
    holder: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in holder:
                raise TensorClash(
                    f"tensor {tensor.name!r} is in both {place_of(origin, holder[tensor.name])} "
                    f"and {place_of(origin, shard.file)}; which one counts cannot be told, so save the checkpoint again"
                )
            holder[tensor.name] = shard.file


def _kept(origin: Origin) -> tuple[str, ...]:
    """The files to copy."""
    kept = []
    for name in origin.names():
        if name.isascii() and any(fnmatchcase(name, pattern) for pattern in KEPT) and origin.size(name) is not None:
            _checked_size(origin, name, MAX_KEPT_BYTES, NotACheckpoint)
            kept.append(name)
    return tuple(kept)


def _object(data: bytes, path: str, wrong: type[CheckpointError]) -> Mapping[str, object]:
    try:
        value = strict_json.loads(data)
    except ValueError as error:
        raise wrong(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise wrong(f"{path} is no JSON object")
    return value


def _checked_size(origin: Origin, name: str, limit: int, wrong: type[CheckpointError]) -> int:
    size = origin.size(name) or 0
    if size > limit:
        raise wrong(f"{place_of(origin, name)} has {size} bytes; more than {limit} is no file of its kind")
    return size
