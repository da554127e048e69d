"""What lies on this node's disk: one directory a checkpoint, looked at when the store starts and kept in step since.

A directory may hold only some of its checkpoint's units: see presence.py.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from mesh.checkpoint import layout
from mesh.checkpoint.errors import CheckpointError
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.staging import digests_in, remove, sweep
from mesh.checkpoint.verify import MANIFEST, load_manifest
from mesh.errors import Conflict, InvalidRequest, NotFound, Unsuitable
from mesh.facts import CheckpointSummary
from services.store.presence import Presence

log = structlog.get_logger()
QUARANTINE = ".quarantine"
OWNER = ".store.lock"
TOUCH_S = 60.0  # a use is noted on disk at most this often


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint on disk."""

    directory: Path
    manifest: Manifest
    manifest_json: bytes
    summary: CheckpointSummary
    presence: Presence
    files_bytes: int

    @property
    def units_on_disk(self) -> frozenset[int]:
        """Indexes of the units whose bytes are here."""
        return self.presence.units

    @property
    def disk_bytes(self) -> int:
        """Bytes of its parts that are here; `summary.bytes` when all are."""
        return self.presence.bytes

    @property
    def complete(self) -> bool:
        """Whether every unit is here."""
        return self.presence.complete

    @property
    def part_paths(self) -> tuple[Path, ...]:
        """The part files, as the manifest numbers them."""
        return tuple(self.directory / part.file for part in self.manifest.parts)


class Catalog:
    """The checkpoints below `root`. Use as an async context manager: it looks at the disk, and owns the directory."""

    def __init__(self, root: Path, on_change: Callable[[], None], now_s: Callable[[], float] = time.time) -> None:
        self.root, self._on_change, self._now_s = root, on_change, now_s
        self._stored: dict[str, Stored] = {}
        self._used_s: dict[str, float] = {}  # wall clock, so that it means something after a restart
        self._owner: int | None = None
        self._changing = asyncio.Lock()  # directories come and go one at a time

    async def __aenter__(self) -> Self:
        self._owner = _own(self.root)
        try:
            found = await asyncio.to_thread(_scan, self.root)
        except BaseException:
            os.close(self._owner)
            raise
        self._stored = {stored.manifest.digest: stored for stored in found}
        self._used_s = {digest: _noted_use(stored) for digest, stored in self._stored.items()}
        log.info("checkpoints found", store_dir=str(self.root), checkpoints=len(found), disk_bytes=self.used_bytes)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._owner is not None:
            os.close(self._owner)

    @property
    def used_bytes(self) -> int:
        """Bytes of all checkpoints on disk, small files included."""
        return sum(stored.disk_bytes + stored.files_bytes for stored in self._stored.values())

    def all(self) -> tuple[Stored, ...]:
        """Every checkpoint, by digest."""
        return tuple(self._stored[digest] for digest in sorted(self._stored))

    def get(self, digest: str) -> Stored:
        """The checkpoint; counts as a use. Raises InvalidRequest when `digest` is none, NotFound when not here."""
        if not layout.is_digest(digest):
            raise InvalidRequest.field("digest", "must be 64 lowercase hex digits")
        stored = self._stored.get(digest)
        if stored is None:
            raise NotFound(f"checkpoint {digest} is not in this store; import it first", reason="UNKNOWN_CHECKPOINT")
        self._use(stored)
        return stored

    def knows(self, digest: str) -> bool:
        """Whether it is here, some of it at least; no use of it."""
        return digest in self._stored

    def is_current(self, stored: Stored) -> bool:
        """Whether it has been neither deleted nor replaced."""
        return self._stored.get(stored.manifest.digest) is stored

    def used_s(self, digest: str) -> float:
        """When it was last asked for, wall clock; 0 when that is unknown."""
        return self._used_s.get(digest, 0.0)

    def changed(self) -> None:
        """Units have come or gone."""
        self._on_change()

    async def add(self, manifest: Manifest) -> Stored:
        """Takes up a checkpoint that has just been published. Raises Conflict if it has been deleted since."""
        directory = self.root / manifest.digest
        async with self._changing:
            if not await asyncio.to_thread(directory.is_dir):
                raise Conflict(f"checkpoint {manifest.digest} was deleted during its import; import it again")
            former = self._stored.get(manifest.digest)
            if former and not former.complete:  # a whole one has taken its place
                await asyncio.to_thread(former.presence.retire)
            if former is None or not former.complete:
                self._stored[manifest.digest] = await asyncio.to_thread(_stored, directory, manifest)
            stored = self._stored[manifest.digest]
        self._use(stored)
        self._on_change()
        return stored

    async def delete(self, digest: str) -> None:
        """Out of the catalogue, then off the disk."""
        await self._take_out(digest, remove)

    async def quarantine(self, digest: str, why: str) -> None:
        """Out of the catalogue; the bytes are kept below .quarantine, where nothing serves them."""
        await self._take_out(digest, lambda directory: _set_aside(directory, why))

    async def _take_out(self, digest: str, put_away: Callable[[Path], None]) -> None:
        stored = self._stored.pop(digest, None)
        if stored is None:
            return
        self._on_change()
        async with self._changing:
            await asyncio.to_thread(stored.presence.retire)
            await asyncio.shield(asyncio.to_thread(put_away, stored.directory))

    def _use(self, stored: Stored) -> None:
        digest, now_s = stored.manifest.digest, self._now_s()
        if now_s - self._used_s.get(digest, 0.0) >= TOUCH_S:
            with contextlib.suppress(OSError):  # deleted meanwhile, or a disk that takes no writes
                os.utime(stored.directory / MANIFEST, (now_s, now_s))
        self._used_s[digest] = now_s


def _own(root: Path) -> int:
    """A lock on `root` that lasts as long as this process. Raises Unsuitable when another store has it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        owner = os.open(root / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unsuitable(f"WHIMBREL_STORE_DIR {root} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(owner)
        raise Unsuitable(f"another store owns {root}; give each its own WHIMBREL_STORE_DIR") from None
    return owner


def _scan(root: Path) -> list[Stored]:
    for leftover in sweep(root):
        log.info("leftover of an import removed", directory=leftover)
    found = []
    for digest in digests_in(root):
        try:
            found.append(_stored(root / digest, load_manifest(root / digest)))
        except CheckpointError as error:
            _set_aside(root / digest, str(error))
    return found


def _stored(directory: Path, manifest: Manifest) -> Stored:
    parts_bytes = layout.total_bytes(manifest)
    summary = CheckpointSummary(
        digest=manifest.digest,
        bytes=parts_bytes,
        architecture=manifest.architecture,
        dtype=manifest.dtype,
        max_context=manifest.max_context,
        units=len(manifest.units),
        tensors=len(manifest.tensors),
        kv_bytes_per_token=layout.kv_bytes_per_token(manifest),
        base=manifest.base or "",
        runner=layout.runner_of(manifest),
    )
    files_bytes = sum(file.bytes for file in manifest.files)
    return Stored(directory, manifest, layout.dump(manifest), summary, Presence(directory, manifest), files_bytes)


def _noted_use(stored: Stored) -> float:
    return (stored.directory / MANIFEST).stat().st_mtime


def _set_aside(directory: Path, why: str) -> None:
    grave = directory.parent / QUARANTINE / directory.name
    shutil.rmtree(grave, ignore_errors=True)  # an earlier copy with the same name
    grave.parent.mkdir(exist_ok=True)
    directory.rename(grave)
    log.error("checkpoint quarantined; import it again, then delete it there", why=why, directory=str(grave))
