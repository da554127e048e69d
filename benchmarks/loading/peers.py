"""Who is raced against, each at the best settings that were found for it, and where it is installed."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from benchmarks.formats import shards, tensorizer_file, torch_file

ROOT = Path(__file__).parents[2]
VENVS = ROOT / ".bench-peers"
NONE: Mapping[str, str] = MappingProxyType({})
HUGE_PAGES = MappingProxyType({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})  # malloc asks for 2 MiB pages


@dataclass(frozen=True, slots=True)
class Peer:
    """A loader of loaders.py. `venv`: the environment of its own that it needs, below the peers' directory."""

    key: str  # in the figures
    label: str
    loader: str
    venv: str | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: NONE)
    reads: Callable[[Path], list[Path]] = shards

    def files(self, directory: Path) -> list[Path]:
        """What it reads of a model."""
        return self.reads(directory)

    def python(self, venvs: Path) -> str:
        """The interpreter that it runs in."""
        return str((venvs / self.venv / "bin" / "python").absolute()) if self.venv else sys.executable

    def installed(self, venvs: Path) -> bool:
        """Whether it can run."""
        return Path(self.python(venvs)).exists()


PEERS = (
    Peer("safetensors", "safetensors load_file, touched", "safetensors"),
    Peer("from_pretrained", "transformers from_pretrained", "from_pretrained"),
    Peer("torch_load", "torch.load, touched", "torch_load", reads=lambda directory: [torch_file(directory)]),
    Peer("fastsafetensors", "fastsafetensors", "fastsafetensors", "fastsafetensors", HUGE_PAGES),
    Peer("runai", "runai-model-streamer", "runai", "runai-model-streamer"),
    Peer(
        "tensorizer",
        "tensorizer",
        "tensorizer",
        "tensorizer",
        HUGE_PAGES,
        reads=lambda directory: [tensorizer_file(directory)],
    ),
)
EVERYWHERE = ("safetensors", "from_pretrained")  # in our own environment
