"""Whether an adapter's tensors fit the checkpoint that they adapt: every module is there, every shape agrees. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mesh.checkpoint.adapter import AdapterConfig, read_config
from mesh.checkpoint.errors import BaseMismatch, ShardMismatch
from mesh.checkpoint.records import AS_STORED, Manifest
from mesh.checkpoint.shards import ShardTensor
from mesh.checkpoint.source import Form, Source

PREFIX = "base_model.model."
WRAPPER = ".base_layer"  # a module around which PEFT has put its own, once for each parameter that it adapts
A, B, B_BIAS = ".lora_A.weight", ".lora_B.weight", ".lora_B.bias"
EMBEDDING_A, EMBEDDING_B = ".lora_embedding_A", ".lora_embedding_B"
MAGNITUDE, OLD_MAGNITUDE = ".lora_magnitude_vector", ".lora_magnitude_vector.weight"
TOKENS = ".token_adapter.trainable_tokens_delta"
ADDED = (A, B, B_BIAS, EMBEDDING_A, EMBEDDING_B, MAGNITUDE, OLD_MAGNITUDE, TOKENS)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Base:
    """What an adapter must fit: shapes by tensor and by module, and the modules that only a kernel can unpack."""

    tensors: Mapping[str, Shape]
    modules: Mapping[str, tuple[Shape, ...]]
    packed: frozenset[str]


def check_base(source: Source, base: Manifest | None) -> None:
    """Raises BaseMismatch for an adapter without a base, or a model with one; ShardMismatch if the two do not fit."""
    if source.form is not Form.ADAPTER:
        if base is not None:
            raise BaseMismatch(f"{source.origin.url} is no adapter but a model of its own; import it without a base")
        return
    config = read_config(source.config, source.config_path)
    if base is None:
        raise BaseMismatch(
            f"{source.origin.url} is an adapter of {config.base_name or 'a model that it does not name'}; "
            "import that, then this with the digest of it"
        )
    if base.base is not None:
        raise BaseMismatch(f"{base.digest} is itself an adapter, of {base.base}; give the digest of the model")
    tensors = [tensor for shard in source.shards for tensor in shard.tensors]
    check_fit(tensors, base, config, source.origin.url)


def check_fit(tensors: Iterable[ShardTensor], base: Manifest, config: AdapterConfig, source: str) -> None:
    """Raises ShardMismatch, naming the first module that does not fit."""
    known, adapted = _known(base), _by_module(tensors, source)
    if not adapted:
        raise ShardMismatch(f"{source} has no tensors; save the adapter again")
    for module, added in adapted.items():
        if not _fits(module, added, known, config):
            shapes = ", ".join(f"{name} {list(shape)}" for name, shape in added.items())
            raise ShardMismatch(
                f"{source} does not fit its base, {base.architecture} {base.digest}: that has no {module!r} to take "
                f"{shapes}; give the checkpoint that the adapter was trained on"
            )


def _known(base: Manifest) -> Base:
    shapes = {tensor.name: tensor.shape for tensor in base.tensors}
    shapes |= {tie.name: shapes[tie.target] for tie in base.ties}
    modules: dict[str, list[Shape]] = defaultdict(list)
    for name, shape in shapes.items():
        modules[_owner(name)].append(shape)
    packed: frozenset[str] = frozenset()
    if base.transformers == AS_STORED:
        packed = frozenset(modules) - {
            _owner(tensor.name) for tensor in base.tensors if _is_plain(tensor.name, tensor.dtype)
        }
    return Base(shapes, {module: tuple(found) for module, found in modules.items()}, packed)


def _is_plain(name: str, dtype: str) -> bool:
    """Whether it is a weight of one number an element, so that its shape tells what a module takes and gives."""
    return name.endswith(".weight") and "float" in dtype and dtype != "float4_e2m1fn_x2"


def _by_module(tensors: Iterable[ShardTensor], source: str) -> Mapping[str, Mapping[str, Shape]]:
    """For each module, as PEFT names it, what is added to it. What replaces a tensor stands under its name, as ''."""
    found: dict[str, dict[str, Shape]] = defaultdict(dict)
    for tensor in tensors:
        if not tensor.name.startswith(PREFIX):
            raise ShardMismatch(f"{source} has a tensor {tensor.name!r}; those of a PEFT adapter begin with {PREFIX!r}")
        name = tensor.name.removeprefix(PREFIX)
        added = next((suffix for suffix in ADDED if name.endswith(suffix)), "")
        found[name.removesuffix(added)][added.replace(OLD_MAGNITUDE, MAGNITUDE)] = tensor.shape
    return found


def _fits(module: str, added: Mapping[str, Shape], base: Base, config: AdapterConfig) -> bool:
    target = module.replace(WRAPPER, "")
    if added.keys() == {""}:
        return base.tensors.get(target) == added[""]
    if added.keys() == {TOKENS}:
        return any(_is_rows_of(added[TOKENS], weight) for weight in base.modules.get(target, ()))
    inner, outer = (EMBEDDING_A, EMBEDDING_B) if EMBEDDING_A in added else (A, B)
    if not {inner, outer} <= added.keys() <= {inner, outer, B_BIAS, MAGNITUDE}:
        return False
    down, up = added[inner], added[outer]
    flipped = inner == EMBEDDING_A or config.fan_in_fan_out
    taken = (_takes(weight, down, up, config.ranks, flipped=flipped) for weight in base.modules.get(target, ()))
    return _is_product(down, up, added) and (target in base.packed or any(taken))


def _is_product(down: Shape, up: Shape, added: Mapping[str, Shape]) -> bool:
    """Whether up @ down, [out, rank] @ [rank, in], has one meaning, and the vectors beside it are [out]."""
    matrices = len(down) == len(up) == 2 and down[0] == up[1]
    return matrices and all(added.get(vector, up[:1]) == up[:1] for vector in (B_BIAS, MAGNITUDE))


def _takes(weight: Shape, down: Shape, up: Shape, ranks: Collection[int], *, flipped: bool) -> bool:
    """Whether up @ down can be added to a weight; fused experts, [experts, …, …], lie either way round."""
    sides = (down[1], up[0]) if flipped else (up[0], down[1])
    if len(weight) == 3:
        return weight[1:] in {sides, sides[::-1]} and _rank(down[0], weight[0]) in ranks
    return weight == sides and down[0] in ranks


def _rank(rows: int, experts: int) -> int:
    """Of each expert; 0, which is none, if they do not share the rows evenly."""
    return rows // experts if experts and rows % experts == 0 else 0


def _is_rows_of(delta: Shape, weight: Shape) -> bool:
    return len(delta) == len(weight) == 2 and delta[0] <= weight[0] and delta[1] == weight[1]


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
