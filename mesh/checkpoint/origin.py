"""What an import reads from: the files of one source, by name and range. Where they lie is each origin's business."""

from typing import Protocol


class Origin(Protocol):
    """The files of one directory, as they were at first sight. Safe to call from several threads; calls block.

    Names in subdirectories ("files/config.json") can be asked for, but are not listed. Errors are CheckpointErrors:
    NotACheckpoint, PathEscapes, OriginRefused where somebody has to mend something first, and OriginUnreachable where
    trying again may help: also when a file has changed since it was first looked at, so that nobody reads a mix of two
    versions.
    """

    url: str
    """Where it lies, as manifests record it; no secret is in it."""

    @property
    def identity(self) -> str:
        """Equal only while no file has changed: a commit, or sizes with modification times or entity tags."""

    def names(self) -> tuple[str, ...]:
        """The files, sorted; those in subdirectories are left out."""

    def size(self, name: str) -> int | None:
        """Bytes of a regular file; None when there is none of that name."""

    def read_into(self, name: str, offset: int, view: memoryview) -> None:
        """Fills `view` from `offset` of a file; all of it, or an error."""

    def close(self) -> None:
        """Lets go of files and connections."""


def place_of(origin: Origin, name: str) -> str:
    """Where a file of an origin lies, for people."""
    return f"{origin.url.rstrip('/')}/{name}"


def read_range(origin: Origin, name: str, offset: int, count: int) -> bytes:
    """`count` bytes of a file, all of them, or an error."""
    data = bytearray(count)
    origin.read_into(name, offset, memoryview(data))
    return bytes(data)
