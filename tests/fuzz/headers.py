"""safetensors files made at random, and what must hold of any whose header passes: it can be kept as it is."""

import json
from contextlib import suppress
from dataclasses import replace
from math import prod

from mesh.checkpoint import layout
from mesh.checkpoint.adapter import AdapterConfig
from mesh.checkpoint.adapter_fit import check_fit
from mesh.checkpoint.errors import BadShard, ShardMismatch
from mesh.checkpoint.grouping import group
from mesh.checkpoint.layout import DTYPES, Part, Unit
from mesh.checkpoint.plan import lay_out
from mesh.checkpoint.shards import PACKED, SAFETENSORS_DTYPES, Shard, read_shard
from tests.fuzz.manifests import Choose, bend
from tests.mesh.checkpoint.memory_origin import MemoryOrigin
from tests.mesh.checkpoint.samples import manifest, sealed

STEPS = (
    "base_model", "model", "layers", "experts", "shared_experts", "0", "1", "007", "9999999999", "-1", "embed_tokens",
    "base_layer", "lora_A", "lora_B", "lora_embedding_A", "lora_magnitude_vector", "weight", "",
    "ü", "\ud800", "x" * 600,
)  # fmt: skip
SIZES = (0, 1, 2, 3, 4, 8, 2**31, 2**62, 2**63)
FILE = "model.safetensors"
PLAIN = AdapterConfig(frozenset({1, 4}), fan_in_fan_out=False, base_name="")


def make(choose: Choose) -> bytes:
    """A file that is often sound: tensors one behind the other, then perhaps bent."""
    header: dict[str, object] = {}
    end = 0
    for _ in range(choose(6)):
        name = ".".join(STEPS[choose(len(STEPS))] for _ in range(1 + choose(6)))
        dtype = sorted(SAFETENSORS_DTYPES)[choose(len(SAFETENSORS_DTYPES))]
        shape = [SIZES[choose(len(SIZES) if choose(4) == 0 else 5)] for _ in range(choose(4))]
        size = prod(shape) * DTYPES[SAFETENSORS_DTYPES[dtype]] // PACKED.get(dtype, 1)
        if name not in header and size < 1 << 16:
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end += size
    for _ in range(choose(3)):
        bend(header, choose)
    spelled = json.dumps(header).encode()
    return len(spelled).to_bytes(8, "little") + spelled + bytes(end)


def check(data: bytes) -> Shard | None:
    """The shard, if it passes; AssertionError if one passes whose ranges leave the file or cannot be laid out."""
    try:
        shard = read_shard(MemoryOrigin({FILE: data}), FILE)
    except BadShard:
        return None
    end = len(data) - sum(tensor.bytes for tensor in shard.tensors)
    for tensor in shard.tensors:
        assert tensor.offset == end
        end += tensor.bytes
        assert tensor.bytes == prod(tensor.shape) * DTYPES[tensor.dtype]
    assert end == len(data)
    plan = lay_out(group(shard.tensors))
    units = tuple(Unit(u.name, u.kind, 0, u.offset, u.bytes, "0" * 64, u.layer, u.expert) for u in plan.units)
    parts = (Part("part-000.bin", 0, plan.bytes),)
    kept = sealed(replace(manifest(), parts=parts, units=units, tensors=plan.tensors, ties=()))
    layout.validate(layout.parse(layout.dump(kept)))
    assert {t.name: (t.dtype, t.shape) for t in kept.tensors} == {t.name: (t.dtype, t.shape) for t in shard.tensors}
    with suppress(ShardMismatch):
        check_fit(shard.tensors, kept, PLAIN, MemoryOrigin.url)
    return shard
