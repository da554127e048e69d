"""How far an import has come: what the converter reports and the importing process passes on."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class ImportPhase(StrEnum):
    """What the importer is doing."""

    READING = "reading"  # headers and config; bytes_total are those of the source
    WRITING = "writing"  # bytes from the source into the part, hashed; begins where an earlier import was broken off
    PUBLISHING = "publishing"  # fsync, rename


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """Bytes of the checkpoint that went through `phase`."""

    phase: ImportPhase
    bytes_done: int
    bytes_total: int


OnProgress = Callable[[ImportProgress], None]
