"""A Hugging Face checkpoint, judged by ourselves before transformers sees it: what is there, is it safe to read."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from fnmatch import fnmatchcase
from functools import partial
from math import prod

from mesh.checkpoint import strict_json
from mesh.checkpoint.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_config
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
    "modules.json", "LICENSE*",
)  # fmt: skip
"""The small files that travel with a checkpoint, and nothing else: no code, no images, no weights."""
NESTED = (
    "additional_chat_templates/tool_use.jinja", "additional_chat_templates/rag.jinja", "1_Pooling/config.json",
)  # fmt: skip
"""Those in subdirectories, which are not listed: asked for one by one."""
QUANTIZED = ("quantization_config", "compression_config")
MAX_CONFIG_BYTES = 16 << 20
MAX_INDEX_BYTES = 256 << 20
MOST_SHARDS = 10_000
READ_AT_ONCE = 4  # headers, so that a distant origin takes a round trip a few shards
MAX_KEPT_BYTES = 256 << 20  # the largest tokenizer.json in use is a tenth of it


class Form(Enum):
    """What an import makes of a source."""

    STATE = auto()  # what transformers' loader makes of it: ready to run
    AS_STORED = auto()  # the tensors of the shards, quantized: nobody but their own kernels can make anything of them
    ADAPTER = auto()  # a PEFT directory; its tensors as they are


@dataclass(frozen=True, slots=True)
class Source:
    """An origin that passed: its files are there, headers checked, no name twice."""

    origin: Origin
    form: Form
    config: Mapping[str, object]
    config_json: bytes
    shards: tuple[Shard, ...]
    kept: tuple[str, ...]  # names of the small files that travel along

    @property
    def config_path(self) -> str:
        """Where the config lies, for people."""
        return place_of(self.origin, self.config_name)

    @property
    def config_name(self) -> str:
        """config.json, or an adapter's."""
        return ADAPTER_CONFIG if self.form is Form.ADAPTER else CONFIG

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
    adapts = origin.size(ADAPTER_CONFIG) is not None and not _has_model(origin)
    name = ADAPTER_CONFIG if adapts else CONFIG
    path = place_of(origin, name)
    if origin.size(name) is None:
        raise NotACheckpoint(f"{origin.url} has no {name}; give a directory that from_pretrained would load")
    config_json = read_small(origin, name, MAX_CONFIG_BYTES, NotACheckpoint)
    config = _object(config_json, path, NotACheckpoint)
    form = _adapter_form(config, path) if adapts else _form(config, path)
    names = _adapter_shard(origin) if adapts else _shard_names(origin)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        shards = tuple(pool.map(partial(read_shard, origin), names))
    _check_clashes(origin, shards)
    return Source(origin, form, config, config_json, shards, _kept(origin, form))


def _has_model(origin: Origin) -> bool:
    return any(origin.size(name) is not None for name in (WEIGHTS, INDEX))


def read_small(origin: Origin, name: str, limit: int, wrong: type[CheckpointError]) -> bytes:
    """All of a file that is there. Raises `wrong` if it has more than `limit` bytes."""
    return read_range(origin, name, 0, _checked_size(origin, name, limit, wrong))


def _adapter_form(config: Mapping[str, object], path: str) -> Form:
    read_config(config, path)
    return Form.ADAPTER


def _form(config: Mapping[str, object], path: str) -> Form:
    """Of a model. Raises UnsupportedModel where config.json alone says that nothing can be made of it."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type or not model_type.isascii():
        raise UnsupportedModel(f"{path} names no model_type, so nothing tells which architecture it is")
    for field in ("dtype", "torch_dtype"):
        dtype = config.get(field)
        if dtype is not None and (not isinstance(dtype, str) or dtype.removeprefix("torch.") not in DTYPES):
            raise UnsupportedModel(f"{path} has {field} {dtype!r}, which is no dtype")
    parts = [part for part in (config, config.get("text_config")) if isinstance(part, Mapping)]
    quantized = any(part.get(field) is not None for part in parts for field in QUANTIZED)
    return Form.AS_STORED if quantized else Form.STATE


def _adapter_shard(origin: Origin) -> Sequence[str]:
    if origin.size(ADAPTER_WEIGHTS) is None:
        raise _no_weights(origin, ADAPTER_WEIGHTS)
    return [ADAPTER_WEIGHTS]


def _shard_names(origin: Origin) -> Sequence[str]:
    """The safetensors files, found the way from_pretrained finds them: one file, or those of the index."""
    if origin.size(WEIGHTS) is not None:
        return [WEIGHTS]
    if origin.size(INDEX) is None:
        raise _no_weights(origin, WEIGHTS)
    return _indexed(origin)


def _no_weights(origin: Origin, wanted: str) -> NotACheckpoint | PickleRefused:
    pickles = [name for name in origin.names() if any(fnmatchcase(name, pattern) for pattern in PICKLES)]
    if pickles:
        return PickleRefused(
            f"{origin.url} has weights only as pickles ({pickles[0]}), which run code when read; "
            f"save it again with safe_serialization to get {wanted}"
        )
    wanted = f"neither {WEIGHTS} nor {INDEX}" if wanted == WEIGHTS else f"no {wanted}"
    return NotACheckpoint(f"{origin.url} has {wanted}; is the download complete?")


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
        if len(names) > MOST_SHARDS:
            raise BadShard(f"{index} names more than {MOST_SHARDS} shards; save the checkpoint in fewer")
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


def _kept(origin: Origin, form: Form) -> tuple[str, ...]:
    """The files to copy."""
    kept = []
    patterns = (*KEPT, ADAPTER_CONFIG) if form is Form.ADAPTER else KEPT
    named = (name for name in origin.names() if any(fnmatchcase(name, pattern) for pattern in patterns))
    for name in (*named, *NESTED):
        if name.isascii() and origin.size(name) is not None:
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
