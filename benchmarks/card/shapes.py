"""What is served: random Llamas of known shapes, and what a worker needs of memory for each."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.models import Shaped

CONTEXT = 16384
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Served:
    """A model, and how much KV a worker keeps of it."""

    spec: Shaped
    kv_bytes: int

    def settings(self, device: str, weights_bytes: int) -> Mapping[str, str]:
        """Of each of the workers that share the device."""
        return {
            "WHIMBREL_DEVICE": device,
            "WHIMBREL_KV_BYTES": str(self.kv_bytes),
            "WHIMBREL_MEMORY_BYTES": str(weights_bytes + self.kv_bytes + 64 * MIB),
        }


SHAPES: Mapping[str, Served] = {
    "tiny": Served(Shaped("tiny", 256, 704, 4, 4, 2, 64, 2048, CONTEXT), 256 * MIB),
    # The layers of Llama-3.2-1B and of Llama-3-8B; words are not tied, and the tokenizer is the demo model's.
    "1b": Served(Shaped("1b", 2048, 8192, 16, 32, 8, 64, 128256, CONTEXT), 1024 * MIB),
    "8b": Served(Shaped("8b", 4096, 14336, 32, 32, 8, 128, 128256, CONTEXT), 4096 * MIB),
}
