"""What decides which bits a computation gives, beside its inputs: software, processor, threads. Two replicas of an
invariant level whose fingerprints are equal give the same bits."""

import functools
import hashlib
from pathlib import Path

import torch
import transformers

PROCESSOR = Path("/proc/cpuinfo")
TOLD = frozenset({"model name", "flags", "Features", "CPU part"})  # lines that tell one kind of processor from another


def fingerprint(device: torch.device, *others: bytes) -> str:
    """32 hex digits over this thread's surroundings and `others`. The number of threads is the calling thread's own."""
    parts = [about.encode() for about in (*_software(), *_hardware(device))]
    digest = hashlib.blake2b(digest_size=16)
    for part in (*parts, _engine(), *others):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _software() -> tuple[str, ...]:
    return (
        torch.__version__,
        transformers.__version__,
        torch.__config__.show(),
        torch.get_float32_matmul_precision(),
        f"{torch.get_num_threads()} threads",
    )


def _hardware(device: torch.device) -> tuple[str, ...]:
    if device.type == "cuda":
        return (torch.cuda.get_device_name(device), str(torch.cuda.get_device_capability(device)))
    return (torch.backends.cpu.get_cpu_capability(), *_processor())


@functools.cache
def _processor() -> tuple[str, ...]:
    """The first processor's kind and instructions. Empty where the system does not tell: the canary then must."""
    told: dict[str, str] = {}
    for line in PROCESSOR.read_text().splitlines() if PROCESSOR.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() in TOLD:
            told.setdefault(name.strip(), value.strip())
    return tuple(f"{name}: {value}" for name, value in sorted(told.items()))


@functools.cache
def _engine() -> bytes:
    """Over the engine's own code."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()
