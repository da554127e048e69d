"""Which units of a stage are on the disk, with their hashes: one line each, written after the bytes were synced."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

VERSION = 1  # of these lines, and of how an import makes bytes: a stage of another version is not gone on with
_LINE = re.compile(rb"(\d+) ([0-9a-f]{64})")


class Journal:
    """An append-only file. A line that a crash tore off, and what follows it, does not count."""

    def __init__(self, path: Path, key: str, hashes: Sequence[str] = ()) -> None:
        self._path, self._key = path, key
        self.hashes = tuple(hashes)

    @classmethod
    def open(cls, path: Path, key: str) -> Self:
        """The journal of an import known by `key`; one of another import is emptied. Raises OSError."""
        first, _, lines = path.read_bytes().partition(b"\n") if path.exists() else (b"", b"", b"")
        journal = cls(path, key, _hashes(lines) if first == _header(key) else ())
        journal.keep(len(journal.hashes))
        return journal

    def keep(self, count: int) -> None:
        """Forgets all but the first `count` units, and begins the file again with these."""
        self.hashes = self.hashes[:count]
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(_header(self._key) + b"\n" + _lines(0, self.hashes))
        fresh.rename(self._path)

    def append(self, hashes: Sequence[str]) -> None:
        """The next units. Their bytes must have been synced. Raises OSError."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(descriptor, _lines(len(self.hashes), hashes))
        finally:
            os.close(descriptor)
        self.hashes += tuple(hashes)


def is_begun(path: Path) -> bool:
    """Whether a unit or more is finished, so that going on saves something."""
    try:
        _, _, lines = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return False
    return bool(_hashes(lines))


def _header(key: str) -> bytes:
    return f"whimbrel-import {VERSION} {key}".encode()


def _lines(first: int, hashes: Sequence[str]) -> bytes:
    return b"".join(f"{index} {hash_}\n".encode() for index, hash_ in enumerate(hashes, first))


def _hashes(lines: bytes) -> list[str]:
    found: list[str] = []
    for line in lines.split(b"\n")[:-1]:
        match = _LINE.fullmatch(line)
        if match is None or int(match[1]) != len(found):
            break
        found.append(match[2].decode())
    return found
