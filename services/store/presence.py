"""Which units of a checkpoint lie in its part files. The files have their full size from the start; what is not there
is a hole.

units.journal says which are: each line is one change, "+7 +8 -2 <crc32>". No journal: all units are there. Bytes are on
the disk before their "+", and a "-" is before its bytes go, so a store that dies in between never trusts a hole.
"""

import ctypes
import errno
import os
import threading
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path

from mesh.checkpoint.errors import Damaged, StorageFailed
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.staging import sync_directory

JOURNAL = "units.journal"
NEW_JOURNAL = "units.journal.new"
MOST_LINES = 4096  # a longer journal is written anew when it is read
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x01, 0x02
_libc = ctypes.CDLL(None, use_errno=True)


def extents(manifest: Manifest) -> tuple[int, ...]:
    """Bytes from each unit's start to the next one's, or to its part's end: what it takes, padding included."""
    taken: list[int] = []
    ends = [part.bytes for part in manifest.parts]
    for unit in reversed(manifest.units):
        taken.append(ends[unit.part] - unit.offset)
        ends[unit.part] = unit.offset
    return tuple(reversed(taken))


class Presence:
    """The units of one checkpoint that are on disk. `units` may be asked on any thread; the rest blocks, on one."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Reads the journal. Raises Damaged when a line other than the last is not what was written."""
        self._directory, self._manifest = directory, manifest
        self.extents = extents(manifest)
        self._changing, self._naming = threading.Lock(), threading.Lock()
        self._retired = False
        self._all = frozenset(range(len(manifest.units)))
        self.units = self._all
        (directory / NEW_JOURNAL).unlink(missing_ok=True)
        if self._journal.exists():
            self._read()

    @property
    def complete(self) -> bool:
        """Whether every unit is there."""
        return len(self.units) == len(self._all)

    @property
    def bytes(self) -> int:
        """Of the parts; all of them when every unit is there."""
        if self.complete:
            return sum(part.bytes for part in self._manifest.parts)
        return self.extent(self.units)

    def extent(self, units: Collection[int]) -> int:
        """Bytes that these units take, padding included."""
        return sum(self.extents[unit] for unit in units)

    def forget(self, units: Collection[int]) -> None:
        """Nobody is to read these any more; `drop` them next."""
        with self._naming:
            self.units = self.units - frozenset(units)

    def recall(self, units: Collection[int]) -> None:
        """Undoes `forget`, before `drop`."""
        with self._naming:
            self.units = self.units | frozenset(units)

    def settle(self) -> None:
        """Returns once no change is under way: what is written from now on stays."""
        with self._changing:
            pass

    def gain(self, units: Collection[int]) -> None:
        """These have been written: makes their bytes, then their names, survive a power cut."""
        with self._changing:
            if self._retired:
                raise StorageFailed(f"{self._directory} was deleted or replaced meanwhile; ask again")
            new = sorted(frozenset(units) - self.units)
            try:
                for part in {self._manifest.units[unit].part for unit in new}:
                    _sync_data(self._directory / self._manifest.parts[part].file)
                if new:
                    self._append(f"+{unit}" for unit in new)
                with self._naming:
                    self.units = self.units | frozenset(new)
                if self.complete:
                    self._journal.unlink(missing_ok=True)
                    sync_directory(self._directory)
            except OSError as error:
                raise StorageFailed(f"{self._directory} cannot take more units: {error}") from error

    def drop(self, units: Collection[int]) -> int:
        """Takes units off the disk, those already forgotten too; returns the bytes that they took."""
        with self._changing:
            if self._retired or not units:
                return 0
            try:
                self.forget(units)
                if self._journal.exists():
                    self._append(f"-{unit}" for unit in sorted(units))
                else:
                    self._rewrite()
                for unit in units:
                    self._punch(unit)
            except OSError as error:
                raise StorageFailed(f"{self._directory} cannot give up units: {error}") from error
        return self.extent(units)

    def retire(self) -> None:
        """The directory has been deleted, or another one took its place: nothing is changed any more."""
        with self._changing:
            self._retired = True

    @property
    def _journal(self) -> Path:
        return self._directory / JOURNAL

    def _read(self) -> None:
        """A line that was torn by a power cut can only be the last: it is cut off, for its change never happened."""
        units: set[int] = set()
        data, good_bytes = self._journal.read_bytes(), 0
        lines = data.splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            changes = _changes(line, len(self._all))
            if changes is None and number < len(lines):
                raise Damaged(f"{self._journal} line {number} is not what was written; fetch the checkpoint again")
            if changes is not None:
                good_bytes += len(line)
            for unit, there in changes or ():
                (units.add if there else units.discard)(unit)
        self.units = frozenset(units)
        if good_bytes < len(data):
            os.truncate(self._journal, good_bytes)
        if self.complete:  # died between the last line and the journal's end
            self.gain(())
        elif len(lines) > MOST_LINES:
            self._rewrite()

    def _append(self, changes: Iterable[str]) -> None:
        descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        before = os.fstat(descriptor).st_size
        try:
            _write(descriptor, _line(changes))
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)  # half a line must not get a line behind it
            raise
        finally:
            os.close(descriptor)

    def _rewrite(self) -> None:
        new = self._directory / NEW_JOURNAL
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            if self.units:
                _write(descriptor, _line(f"+{unit}" for unit in sorted(self.units)))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.rename(self._journal)
        sync_directory(self._directory)

    def _punch(self, index: int) -> None:
        unit = self._manifest.units[index]
        descriptor = os.open(self._directory / self._manifest.parts[unit.part].file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            punch(descriptor, unit.offset, self.extents[index])
        finally:
            os.close(descriptor)


def punch(descriptor: int, offset: int, length: int) -> None:
    """Makes a hole in a file, which reads as zeros; where the file system has none, the zeros are written."""
    mode = ctypes.c_int(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
    if _libc.fallocate64(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(number, os.strerror(number))
    zeros = bytes(min(length, 1 << 20))
    for start in range(0, length, len(zeros)):
        os.pwrite(descriptor, zeros[: length - start], offset + start)


def _line(changes: Iterable[str]) -> bytes:
    said = " ".join(changes).encode()
    return said + b" %08x\n" % zlib.crc32(said)


def _changes(line: bytes, units: int) -> list[tuple[int, bool]] | None:
    """(unit, whether it is there), in order; None if this is no line of ours."""
    said, _, crc = line.rpartition(b" ")
    if crc != b"%08x\n" % zlib.crc32(said):
        return None
    changes = [(int(word[1:]), word.startswith(b"+")) for word in said.split()]
    return changes if all(0 <= unit < units for unit, _ in changes) else None


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_data(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
