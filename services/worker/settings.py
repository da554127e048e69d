"""The worker's settings."""

import os
from enum import StrEnum
from pathlib import Path

from pydantic import Field, PositiveFloat

from mesh.facts import NumericsLevel
from mesh.settings import ServiceSettings


class Transport(StrEnum):
    """How weights come from the store."""

    AUTO = "auto"  # shared memory on the same node, else the stream
    SHARED = "shared"  # the memory itself, or a ring of it
    STREAM = "stream"


class DeviceName(StrEnum):
    """What a worker owns."""

    HOST = "host"
    CUDA = "cuda"


def half_of_memory() -> int:
    """Bytes; half of what the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def eighth_of_memory() -> int:
    """Bytes; an eighth of what the machine has."""
    return half_of_memory() // 4


class WorkerSettings(ServiceSettings):
    """WHIMBREL_*; see each description."""

    memory_bytes: int = Field(
        default_factory=half_of_memory,
        ge=1 << 20,
        description="Memory for weights and KV, in bytes. Unset: half of the machine's; on a card, most of what is "
        "free there when the worker starts, so that workers which share a card must be told their parts.",
    )
    kv_bytes: int = Field(
        256 << 20,
        ge=1 << 16,
        description="KV cache booked for each replica, in bytes. On the host, replicas use each other's while it"
        " is not needed.",
    )
    host_kv_bytes: int = Field(
        256 << 20,
        ge=0,
        description="Host memory for KV that the replicas' caches give up, in bytes, beside memory_bytes; 0 for none.",
    )
    packed_bytes: int = Field(
        default_factory=eighth_of_memory,
        ge=0,
        description="Memory beside memory_bytes for copies of the weights of models that run, packed as the CPU "
        "multiplies them faster, in bytes. Unset: an eighth of the machine's; 0: none.",
    )
    weights: dict[str, PositiveFloat] = Field(
        {}, description="Parts of the device's time by model, as a JSON object; others have 1."
    )
    slots: int = Field(32, ge=1, le=1024, description="Requests that one replica runs at once.")
    max_batch_tokens: int = Field(
        512, ge=16, description="Tokens of one engine step: bounds how long a prefill holds it."
    )
    draft_tokens: int = Field(
        0,
        ge=0,
        le=64,
        description="Most tokens guessed ahead of each answer by looking up what followed its newest ones before; the "
        "answers stay the same. Pays for text that repeats its prompt or itself. 0: none.",
    )
    numerics: NumericsLevel = Field(
        NumericsLevel.FAST,
        description="Numerics level of models that were deployed without one: fast, batch_invariant or path_invariant.",
    )
    move_lease_s: float = Field(
        10.0,
        gt=0,
        le=600,
        description="Seconds without a word after which a request that was to come from another worker is forgotten, "
        "and a worker that does not write what is sent to it counts as lost.",
    )
    move_window_bytes: int = Field(
        16 << 20,
        ge=1 << 20,
        description="Most bytes of one request that are on their way to another worker and not written there.",
    )
    move_bytes_s: float = Field(
        1e9,
        ge=0,
        description="Most bytes a second that leave for other workers; fewer while answers' tokens would be late. "
        "0: no bound.",
    )
    move_precopy: bool = Field(
        True,
        description="Send a request's KV while its answer goes on. Without, the answer stops first, which is only good "
        "to compare with.",
    )
    move_pipe: bool = Field(
        True,
        description="Take KV that comes over a TCP connection of its own, at a free port of `host`, beside the gRPC "
        "stream. Without, or where that port cannot be reached, it comes in messages of the stream, which is slower.",
    )
    threads: int = Field(0, ge=0, description="Threads of torch; 0 leaves its default.")
    device: DeviceName = Field(
        DeviceName.HOST, description="What replicas run on: host, this machine's own memory; or cuda, its first GPU."
    )
    transport: Transport = Field(Transport.AUTO, description="How weights come from the store: auto, shared or stream.")
    skeletons: int = Field(16, ge=0, description="Unloaded models whose modules stay built.")
    preimport: tuple[str, ...] = Field(
        ("llama", "qwen2", "gpt2"), description="Model types whose code is imported before serving, as a JSON list."
    )
    ahead: bool = Field(
        True,
        description="Import the code, and build the modules, of models that are deployed before they are asked for.",
    )
    scratch_dir: Path = Field(Path("/tmp"), description="Directory for configs while a model is built.")
