"""The store's settings: where checkpoints lie, how much memory they get, how they are read."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from mesh.checkpoint.errors import BadAddress
from mesh.checkpoint.origins.address import parse
from mesh.settings import ServiceSettings
from services.store.sources import as_prefix

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Verify(StrEnum):
    """When a unit's hash is checked."""

    ALWAYS = "always"
    FETCH = "fetch"
    IMPORT = "import"


class StoreSettings(ServiceSettings):
    """What a store has beside what every service has."""

    store_dir: Path = Field(
        default_factory=lambda: Path.home() / ".local" / "share" / "whimbrel" / "store",
        description="Directory that holds this node's checkpoints. One store owns it.",
    )
    disk_bytes: int | None = Field(
        None,
        ge=0,
        description="Most bytes of checkpoints on disk. When they would be more, units that another store keeps or an "
        "origin has leave, least recently used first; never the only copy. Unset: as much as the file system has.",
    )
    origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Addresses, separated by commas, of directories that hold checkpoints as a store lays them out, "
        "<address>/<digest>/manifest.json: absolute paths, or s3://, gs://, az://, https://. What no store of the "
        "cluster has is fetched from there.",
    )
    scrub_period_s: float = Field(
        7 * 86400.0,
        ge=0,
        description="Seconds in which all units on disk are read and hashed again, in the background, and damaged ones "
        "fetched anew; the pace is what is on disk over this. 0: never.",
    )
    dram_bytes: int = Field(
        default_factory=lambda: memory_bytes() // 4,
        ge=0,
        description="Bytes of shared memory for checkpoints. Default: a quarter of this machine's memory.",
    )
    segment_bytes: int = Field(
        64 << 20,
        ge=2 << 20,
        le=1 << 40,
        multiple_of=2 << 20,
        description="Bytes that memory for checkpoints is handed out in; each piece takes a file descriptor.",
    )
    prefault: bool = Field(
        False,
        description="Touch all of that memory after the start, in the background, so that the first loads need not "
        "wait for the kernel to clear it. It is then taken from the machine at once.",
    )
    rings: int = Field(
        8,
        ge=1,
        le=1024,
        description="Rings for what is larger than that memory, lent at once; more wait for their turn.",
    )
    ring_slots: int = Field(16, ge=2, le=1024, description="Slots of a ring.")
    ring_slot_bytes: int = Field(
        2 << 20, ge=2 << 20, le=1 << 30, multiple_of=2 << 20, description="Bytes of a slot; beside the memory above."
    )
    reader_threads: int = Field(8, ge=1, le=256, description="Threads that read a checkpoint from disk.")
    chunk_bytes: int = Field(
        1 << 20, ge=4096, le=1 << 30, multiple_of=4096, description="Bytes that a reader thread asks the disk for."
    )
    verify: Verify = Field(
        Verify.ALWAYS,
        description="always: check every unit's BLAKE3 when it leaves the disk, which costs about 0.2 CPU seconds a "
        "GB: cores that idle hide it, busy ones do not. fetch: trust the disk for this node's loads, and check what is "
        "sent from it to others; not what such a load has left in memory. import: trust it for that, too. What arrives "
        "over a network is checked in any case.",
    )
    source_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Directories, separated by ':', that Import may read below. Empty: any absolute path."
    )
    source_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        ("s3://", "gs://", "az://", "https://", "hf://"),
        description="What the addresses of remote sources must start with, separated by commas: schemes, or "
        "buckets, hosts, organisations and what is below them, such as s3://models/public or http://127.0.0.1:8000. "
        "Hosts of private networks, and plain http, are only read where listed. Empty: no remote source.",
    )
    imports: int = Field(2, ge=1, le=64, description="Imports that run at once; more wait for their turn.")
    socket_dir: Path | None = Field(
        None,
        description="Existing directory for the Unix socket that hands memory to workers; share it with their "
        "containers. Empty: a private temporary one.",
    )

    @field_validator("origins", "source_roots", "source_urls", mode="before")
    @classmethod
    def _split(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        separator = os.pathsep if info.field_name == "source_roots" else ","
        return tuple(item.strip() for item in value.split(separator) if item.strip())

    @field_validator("origins", mode="after")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            try:
                parse(url)
            except BadAddress as error:
                raise ValueError(f"{url} {error}") from error
        return value

    @field_validator("source_urls", mode="after")
    @classmethod
    def _spelled_as_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(as_prefix(url) for url in value)

    @field_validator("source_roots", "store_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path | tuple[Path, ...]) -> Path | tuple[Path, ...]:
        for path in value if isinstance(value, tuple) else (value,):
            if not path.is_absolute():
                raise ValueError(f"{path} must be an absolute path")
        return value


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its control group's limit when that is less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = CGROUP_LIMIT.read_text().strip()
    except OSError:  # no cgroup v2 here
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical
