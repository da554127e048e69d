"""What the kernel says of a process's memory."""

from dataclasses import dataclass
from pathlib import Path

PART = "memfd:whimbrel-part"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process now."""

    private: int  # anonymous pages: what it has for itself
    mapped_parts: int  # of checkpoints in the store's memory, as address space
    shared_writable_parts: int  # of these, what it could change for others


def memory_of(pid: int) -> Memory:
    """Reads /proc/<pid>."""
    status = Path(f"/proc/{pid}/status").read_text()
    (private,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    parts = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if PART in line]
    return Memory(
        private=int(private.split()[1]) << 10,
        mapped_parts=sum(_length(fields[0]) for fields in parts),
        shared_writable_parts=sum(_length(fields[0]) for fields in parts if {"w", "s"} <= {*fields[1]}),
    )


def bytes_read(pid: int) -> int:
    """By the process's read calls so far, from files above all."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    (read,) = (line for line in lines if line.startswith("rchar:"))
    return int(read.split()[1])


def _length(addresses: str) -> int:
    start, _, end = addresses.partition("-")
    return int(end, 16) - int(start, 16)
