"""Other people's loaders, each behind one call: a directory in, every tensor in memory out.

Each function here imports what it needs, which is not timed, and returns the call that is. `warm` says that the files
are in the page cache: one is then better told to read in another way. They run in the peers' environments, so nothing
of ours but this package is imported.
"""

import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from benchmarks.formats import shards, tensorizer_file, torch_file

Load = Callable[[Path, bool], dict[str, Tensor]]


def safetensors() -> Load:
    """load_file maps the file and has read nothing, so every page is touched, which is faster than cloning."""
    from safetensors.torch import load_file  # noqa: PLC0415  not in every environment

    def load(directory: Path, warm: bool) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for shard in shards(directory):
            tensors |= load_file(shard)
        return touched(tensors)

    return load


def from_pretrained() -> Load:
    """transformers; what it leaves mapped is touched."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    bars: Any = logging
    bars.disable_progress_bar()
    auto: Any = AutoModelForCausalLM

    def load(directory: Path, warm: bool) -> dict[str, Tensor]:
        model = auto.from_pretrained(directory, dtype=torch.bfloat16, local_files_only=True)
        return touched(dict(model.state_dict()))

    return load


def torch_load() -> Load:
    """Mapped and touched, which is faster than reading into fresh memory, also from disk."""

    def load(directory: Path, warm: bool) -> dict[str, Tensor]:
        return touched(torch.load(torch_file(directory), weights_only=True, mmap=True))

    return load


def fastsafetensors() -> Load:
    """The reader without GPUDirect, which is the one for host memory; buffered when the page cache has the bytes."""
    from fastsafetensors import SafeTensorsFileLoader  # noqa: PLC0415

    def load(directory: Path, warm: bool) -> dict[str, Tensor]:
        os.environ["FASTSAFETENSORS_ODIRECT"] = "0" if warm else "1"  # read at each open
        loader = SafeTensorsFileLoader(None, "cpu", nogds=True)
        loader.add_filenames({0: [str(shard) for shard in shards(directory)]})
        buffers = loader.copy_files_to_device()  # tensors keep it alive
        return {name: buffers.get_tensor(name) for name in loader.get_keys()}

    return load


def runai() -> Load:
    """Tensors that are ours to keep (owned=True), so none is copied."""
    from runai_model_streamer import SafetensorsStreamer  # noqa: PLC0415

    def load(directory: Path, warm: bool) -> dict[str, Tensor]:
        with SafetensorsStreamer() as streamer:
            streamer.stream_files([str(shard) for shard in shards(directory)])
            return dict(streamer.get_tensors())

    return load


def tensorizer() -> Load:
    """Eager, with as many readers as it chooses."""
    from tensorizer import TensorDeserializer  # noqa: PLC0415

    def load(directory: Path, warm: bool) -> dict[str, Tensor]:
        deserializer = TensorDeserializer(str(tensorizer_file(directory)), device="cpu")
        return {name: tensor.data for name, tensor in deserializer.items()}

    return load


LOADERS: Mapping[str, Callable[[], Load]] = MappingProxyType(
    {
        "safetensors": safetensors,
        "from_pretrained": from_pretrained,
        "torch_load": torch_load,
        "fastsafetensors": fastsafetensors,
        "runai": runai,
        "tensorizer": tensorizer,
    }
)


def touched(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reads a byte of each page."""
    for tensor in tensors.values():
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        flat[:: mmap.PAGESIZE].max()
        flat[-1].item()
    return tensors
