"""How much an import holds and does at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """The defaults suit a disk and an object store alike: what is in flight covers a round trip of 50 ms at 1 GB/s."""

    ring_bytes: int = 64 << 20  # read and not yet written; a single evaluation that needs more has it to itself
    chunk_bytes: int = 8 << 20  # read, hashed and written at a time
    readers: int = 8  # threads
    sync_bytes: int = 64 << 20  # written between two lines of the journal, or one unit if that is larger
