"""A directory of this machine. Links are followed inside it, or to its repository's blobs in the hub's cache."""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.checkpoint.errors import NotACheckpoint, OriginUnreachable, PathEscapes
from mesh.checkpoint.origins.identity import identity_of
from mesh.checkpoint.validate import is_safe_path


@dataclass(frozen=True, slots=True)
class Opened:
    """A regular file, held open; the stamp tells whether it is still what it was then."""

    descriptor: int
    size: int  # bytes
    stamp: str


class LocalOrigin:
    """The files of a directory. Those at its top are opened at their first use and held until close().

    Nested ones are opened for each read, as there is no end of them below a directory of many checkpoints.
    """

    def __init__(self, directory: Path) -> None:
        self.url = str(directory)
        self._directory = directory
        self._lock = threading.Lock()
        self._opened: dict[str, Opened] = {}
        self._stamps: dict[str, str] = {}  # of nested files, at first sight
        try:
            self._names = self._listed()
        except OSError as error:
            raise self._unreadable(error) from error

    @property
    def identity(self) -> str:
        """Of the sizes and modification times; files that may not be read have no part in it."""
        try:
            return identity_of(self._versions())
        except OSError as error:
            raise self._unreadable(error) from error

    def names(self) -> tuple[str, ...]:
        """Links are listed whatever they lead to."""
        return self._names

    def size(self, name: str) -> int | None:
        """Raises PathEscapes if the name or its link leads out of the directory."""
        with self._held(name) as file:
            return None if file is None else file.size

    def read_into(self, name: str, offset: int, view: memoryview) -> None:
        """Raises OriginUnreachable if the file has changed since it was opened."""
        with self._held(name) as file:
            if file is None:
                raise NotACheckpoint(f"{self._directory / name} is no regular file")
            done = 0
            try:
                while done < len(view) and (count := os.preadv(file.descriptor, [view[done:]], offset + done)):
                    done += count
                now = _stamp(os.fstat(file.descriptor))
            except OSError as error:
                raise self._unreadable(error) from error
        if now != file.stamp:
            raise self._changed(name)
        if done < len(view):
            raise NotACheckpoint(f"{self._directory / name} ends before byte {offset + len(view)}")

    def close(self) -> None:
        """Closes the files; nothing may be read afterwards."""
        with self._lock:
            while self._opened:
                os.close(self._opened.popitem()[1].descriptor)

    def _listed(self) -> tuple[str, ...]:
        if not self._directory.is_dir():
            raise NotACheckpoint(f"{self._directory} is no directory; give one that from_pretrained would load")
        with os.scandir(self._directory) as entries:
            return tuple(sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)))

    def _versions(self) -> Iterator[tuple[str, int, str]]:
        for name in self._names:
            try:
                path = self._real(name)
            except PathEscapes:
                continue
            if path is not None:
                found = path.stat()
                yield name, found.st_size, _stamp(found)

    @contextmanager
    def _held(self, name: str) -> Iterator[Opened | None]:
        """The file, open for as long as the context is."""
        if "/" not in name:
            yield self._kept(name)
            return
        file = self._open(name)
        try:
            if file is not None and self._stamps.setdefault(name, file.stamp) != file.stamp:
                raise self._changed(name)
            yield file
        finally:
            if file is not None:
                os.close(file.descriptor)

    def _kept(self, name: str) -> Opened | None:
        with self._lock:
            if name not in self._opened:
                file = self._open(name)
                if file is None:
                    return None
                self._opened[name] = file
            return self._opened[name]

    def _open(self, name: str) -> Opened | None:
        try:
            path = self._real(name)
            return None if path is None else _opened(path)
        except OSError as error:
            raise self._unreadable(error) from error

    def _real(self, name: str) -> Path | None:
        """The regular file that `name` leads to, or None. Raises PathEscapes if that is outside the directory."""
        directory = self._directory
        if not is_safe_path(name):
            raise PathEscapes(f"{directory} refers to {name!r}; only plain names inside the directory are followed")
        path = directory / name
        if not os.path.lexists(path):
            return None
        real = Path(os.path.realpath(path))  # unlike resolve(), no error on a loop of links
        if not any(real.is_relative_to(home) for home in _homes(Path(os.path.realpath(directory)))):
            raise PathEscapes(f"{path} is a link to {real}, outside the directory; copy the file there")
        return real if real.is_file() else None

    def _changed(self, name: str) -> OriginUnreachable:
        return OriginUnreachable(f"{self._directory / name} changed while it was imported; import it again")

    def _unreadable(self, error: OSError) -> NotACheckpoint:
        return NotACheckpoint(f"{self._directory} cannot be read: {error}")


def _opened(path: Path) -> Opened | None:
    """None if it is no regular file after all; a pipe is not waited for, a link not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        return None
    return Opened(descriptor, found.st_size, _stamp(found))


def _homes(directory: Path) -> tuple[Path, ...]:
    """Where links may lead: the directory and, for a snapshot in the hub's cache, the blobs of that repository."""
    if directory.parent.name == "snapshots":
        return directory, directory.parent.parent / "blobs"
    return (directory,)


def _stamp(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"
