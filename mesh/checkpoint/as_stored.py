"""Tensors kept under the names, dtypes and shapes of their shards: quantized weights, adapters. No model is built."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mesh.checkpoint.architecture import CONTEXT_FIELDS, TRAINED_CONTEXT
from mesh.checkpoint.errors import ShardMismatch
from mesh.checkpoint.expression import Expression
from mesh.checkpoint.grouping import group
from mesh.checkpoint.plan import Placement
from mesh.checkpoint.records import AS_STORED, KVSpec, Manifest, UnitKind
from mesh.checkpoint.source import Source
from mesh.checkpoint.weights import leaf_of
from mesh.facts import RunnerKind

MOST_CONTEXT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class About:
    """What a manifest says of a model, its bytes aside."""

    architecture: str
    model_type: str
    transformers: str
    max_context: int
    kv: KVSpec | None
    base: str | None = None
    runner: RunnerKind | None = None


def about_stored(source: Source) -> About:
    """What config.json says. No engine runs it, so there is no cache to describe."""
    return About(
        architecture=_architecture(source.config),
        model_type=str(source.config["model_type"]),
        transformers=AS_STORED,
        max_context=_max_context(source.config),
        kv=None,
    )


def about_adapter(base: Manifest) -> About:
    """An adapter is known by what it adapts. The cache is the base's, so the adapter has none."""
    return About(
        architecture=base.architecture,
        model_type=base.model_type,
        transformers=base.transformers,
        max_context=base.max_context,
        kv=None,
        base=base.digest,
    )


def tensors_of(source: Source) -> Mapping[str, Expression]:
    """The tensors of all shards. Raises ShardMismatch if there is not a byte of them."""
    if not source.bytes:
        raise ShardMismatch(f"{source.origin.url} has no weights in its shards; download it again")
    return {tensor.name: leaf_of(shard, tensor) for shard in source.shards for tensor in shard.tensors}


def place_stored(source: Source) -> tuple[Placement, ...]:
    """Where each tensor goes, by its name."""
    return group(tensor for shard in source.shards for tensor in shard.tensors)


def place_adapter(source: Source) -> Iterator[Placement]:
    """What adapts a layer is one unit, so that layers can be adapted as they come."""
    for placement in place_stored(source):
        within = placement.layer is not None
        yield replace(placement, kind=UnitKind.ADAPTER, expert=None) if within else placement


def _architecture(config: Mapping[str, object]) -> str:
    """The class that config.json names first, if that is how a class is spelled; else its model_type."""
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else None
    spelled = isinstance(first, str) and first.isascii() and first.isidentifier()
    return str(first if spelled else config["model_type"])


def _max_context(config: Mapping[str, object]) -> int:
    text = config.get("text_config")
    parts = (text, config) if isinstance(text, Mapping) else (config,)
    known = (part.get(field) for part in parts for field in CONTEXT_FIELDS)
    tokens = next((value for value in known if type(value) is int and value > 0), TRAINED_CONTEXT)
    return min(tokens, MOST_CONTEXT)
