"""An import's memory does not grow with the model: two units and the ring hold it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mesh.checkpoint.layout import UnitKind, total_bytes
from mesh.checkpoint.verify import verify_checkpoint

from .samples import Spec, edit_config, save

RING_BYTES = 8 << 20
SLACK_BYTES = 32 << 20  # the model's skeleton, the manifest, what malloc keeps
IMPORTER = f"""
import sys
from pathlib import Path
import torch, transformers
from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.pace import Pace

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

def run(source, root):
    pace = Pace(ring_bytes={RING_BYTES}, chunk_bytes=1 << 20)
    return import_directory(Path(source), Path(root), on_progress=lambda _: None, pace=pace)

def resident_bytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))

first, source, root = sys.argv[1:]
run(first, root + "-first")  # whatever is loaded at a first import is no part of the question
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = resident_bytes("VmRSS:")
digest = run(source, root).digest
print(digest, resident_bytes("VmHWM:") - before)
"""
DENSE = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 20, "num_key_value_heads": 4}
EXPERTS = {"hidden_size": 256, "moe_intermediate_size": 128, "num_experts": 256, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("spec", "dtype", "changes"),
    [
        (Spec("llama", torch.float32), "float32", DENSE),
        (Spec("llama", torch.float32), "bfloat16", DENSE | {"num_hidden_layers": 32}),
        (Spec("qwen3_moe", torch.float32, shard="50MB"), "float32", EXPERTS),
    ],
    ids=["dense", "cast on the way", "1536 experts' tensors"],
)
def test_two_units_and_the_ring_hold_an_import(
    saved: Callable[[Spec], Path], tmp_path: Path, spec: Spec, dtype: str, changes: dict[str, Any]
) -> None:
    source = save(spec, tmp_path / "source", **changes)
    edit_config(source, dtype=dtype)
    command = [sys.executable, "-c", IMPORTER, saved(Spec(spec.family)), source, tmp_path / "root"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    digest, grown_bytes = said.split()
    manifest = verify_checkpoint(tmp_path / "root" / digest)
    if spec.family == "qwen3_moe":
        assert sum(unit.kind is UnitKind.EXPERT for unit in manifest.units) * 3 == 1536
    largest = max(unit.bytes for unit in manifest.units)
    bound = 2 * largest + RING_BYTES + SLACK_BYTES
    assert int(grown_bytes) < bound
    assert bound < total_bytes(manifest) * 2 // 3
