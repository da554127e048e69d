"""How far an import has come: what the converter reports and the importing process passes on."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class ImportPhase(StrEnum):
    """What the importer is doing."""

    READING = "reading"  # mapping the shards, fusing experts
    WRITING = "writing"  # bytes into the part, hashed
    PUBLISHING = "publishing"  # fsync, rename


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """Bytes of the checkpoint that went through `phase`."""

    phase: ImportPhase
    bytes_done: int
    bytes_total: int


OnProgress = Callable[[ImportProgress], None]
