"""The ablation's steps read what they claim to."""

from pathlib import Path

import pytest
import torch
from blake3 import blake3
from safetensors.torch import save_file

from benchmarks.loading.ablation import LABELS, Steps

UNITS = [(0, 3 << 20), (4 << 20, 100), ((4 << 20) + 4096, 2 << 20)]
PART_BYTES = 7 << 20
TENSORS = {"a": torch.arange(5, dtype=torch.int16), "b": torch.ones(3, 7)}


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    (tmp_path / "part").write_bytes(torch.randint(256, (PART_BYTES,), dtype=torch.uint8).numpy().tobytes())
    save_file(TENSORS, tmp_path / "model.safetensors")
    return Steps(tmp_path, tmp_path / "part", UNITS)


@pytest.mark.parametrize("step", [name for name in LABELS if name != "by_tensor"])
def test_a_step_hashes_the_bytes_of_every_unit(step: str, steps: Steps, tmp_path: Path) -> None:
    content = (tmp_path / "part").read_bytes()
    assert getattr(steps, step)() == [blake3(content[offset : offset + size]).digest() for offset, size in UNITS]


def test_the_first_step_hashes_every_tensor(steps: Steps) -> None:
    assert set(steps.by_tensor()) == {blake3(tensor.numpy().tobytes()).digest() for tensor in TENSORS.values()}
