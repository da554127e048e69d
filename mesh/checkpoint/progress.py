"""How far an import has come: what the converter reports and the importing process passes on."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

REPORT_S = 1.0


class ImportPhase(StrEnum):
    """What the importer is doing."""

    READING = "reading"  # headers and config; bytes_total are those of the source, bytes_done what is there already
    WRITING = "writing"  # bytes from the source into the part, hashed; begins where an earlier import was broken off
    PUBLISHING = "publishing"  # fsync, rename


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """Bytes of the checkpoint that went through `phase`."""

    phase: ImportPhase
    bytes_done: int
    bytes_total: int


OnProgress = Callable[[ImportProgress], None]


def paced(total: int, on_progress: OnProgress, clock: Callable[[], float]) -> Callable[[int], None]:
    """Passes on how many bytes are written: at the start, then about once per percent or, if that is more, second."""
    reported, at_s = -total, 0.0

    def on_bytes(done: int) -> None:
        nonlocal reported, at_s
        now_s = clock()
        if done - reported >= total // 100 or (done > reported and now_s - at_s >= REPORT_S):
            reported, at_s = done, now_s
            on_progress(ImportProgress(ImportPhase.WRITING, done, total))

    return on_bytes
